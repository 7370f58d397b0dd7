"""Which functions a query may call: those that compute something from their arguments or tell the time.

A list of what is admitted, because nobody can list what is not: databases have functions that read files, run other
queries, take locks, sleep, end sessions or load code, and every extension adds some. Names are those of the text that
is executed, in lower case. A project adds its own with the option `functions`.
"""

_BOTH = """
abs avg cast ceil ceiling coalesce concat concat_ws count cume_dist current_date exists current_time current_timestamp
dense_rank exp first_value floor iif lag last_value lead length ln log log10 lower ltrim max median min mod nth_value
ntile nullif percent_rank pi power pow rank replace round row_number rtrim sign sqrt substr substring sum trim trunc
upper acos asin atan atan2 cos degrees radians sin tan
"""
_SQLITE = """
changes char date datetime format glob group_concat hex ifnull instr json json_array json_array_length json_each
json_extract json_group_array json_group_object json_object json_quote json_tree json_type json_valid julianday like
match printf quote regexp soundex strftime string_agg time timediff total typeof unhex unicode unixepoch -> ->>
bm25 highlight snippet
"""
_POSTGRES = """
age array_agg array_length array_position array_positions array_remove array_to_string ascii any all bit_and bit_or
bool_and bool_or btrim cardinality cbrt char_length character_length chr clock_timestamp corr covar_pop covar_samp
daterange date_bin date_part date_trunc div every extract factorial format gcd generate_series
generate_subscripts greatest grouping initcap int4range int8range isfinite isempty json_agg json_array_elements
json_array_elements_text json_array_length json_build_array json_build_object json_each json_each_text
json_extract_path json_extract_path_text json_object_agg json_object_keys json_strip_nulls json_typeof jsonb_agg
jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_object_agg jsonb_object_keys jsonb_path_exists
jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_strip_nulls jsonb_typeof
justify_days justify_hours justify_interval lcm least left localtime localtimestamp lower_inf lpad make_date
make_interval make_time make_timestamp make_timestamptz md5 mode now num_nonnulls num_nulls numrange octet_length
overlay percentile_cont percentile_disc phraseto_tsquery plainto_tsquery position range_agg regexp_count regexp_instr
regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr
regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat reverse right row
row_to_json rpad split_part starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array
string_to_table strpos timeofday to_char to_date to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector
transaction_timestamp translate ts_headline ts_rank ts_rank_cd tsrange tstzrange unaccent unnest upper_inf var_pop
var_samp variance websearch_to_tsquery width_bucket similarity word_similarity
"""

SQLITE_FUNCTIONS = frozenset((_BOTH + _SQLITE).split())
POSTGRES_FUNCTIONS = frozenset((_BOTH + _POSTGRES).split())
