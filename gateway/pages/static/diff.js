// Shows what changed between two texts, word by word. Lines are compared first, so that a long text stays quick; words
// are compared within the lines that differ. Everything is inserted as text, never as markup.

const MOST_CELLS = 4_000_000; // of the table of common lengths; beyond it a stretch counts as replaced as a whole
const CONTEXT = 3; // unchanged lines kept around a change

/** Compare two arrays: a list of `[kind, items]`, kind one of `same`, `del`, `ins`. */
export function compare(before, after) {
  let start = 0, end = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end++;
  const middle = between(before.slice(start, before.length - end), after.slice(start, after.length - end));
  return join([["same", before.slice(0, start)], ...middle, ["same", end ? before.slice(-end) : []]]);
}

/** The longest common subsequence (Wagner and Fischer, 1974), as the parts that are in one, the other or both. */
function between(before, after) {
  const rows = before.length, columns = after.length, width = columns + 1;
  if (!rows || !columns || rows * columns > MOST_CELLS) return [["del", before], ["ins", after]];
  const common = new Uint32Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      common[i * width + j] = before[i] === after[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  const parts = [];
  let i = 0, j = 0;
  while (i < rows && j < columns) {
    if (before[i] === after[j]) { parts.push(["same", [before[i]]]); i++; j++; }
    else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) parts.push(["del", [before[i++]]]);
    else parts.push(["ins", [after[j++]]]);
  }
  return [...parts, ["del", before.slice(i)], ["ins", after.slice(j)]];
}

function join(parts) {
  const joined = [];
  for (const [kind, items] of parts) {
    if (!items.length) continue;
    if (joined.length && joined.at(-1)[0] === kind) joined.at(-1)[1].push(...items);
    else joined.push([kind, [...items]]);
  }
  return joined;
}

const lines = (text) => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

/** Write the changes into an element. Returns whether there are any. */
export function showChanges(element, before, after) {
  element.replaceChildren();
  if (before === after) {
    element.append(node("span", "skipped", "No change yet."));
    return false;
  }
  const parts = compare(lines(before), lines(after));
  for (let at = 0; at < parts.length; at++) {
    const [kind, items] = parts[at];
    if (kind === "same") same(element, items, at === 0, at === parts.length - 1);
    else if (kind === "del" && parts[at + 1]?.[0] === "ins") inWords(element, items.join(""), parts[++at][1].join(""));
    else element.append(node(kind, "", items.join("")));
  }
  return true;
}

/** Neighbouring changes read as one: what was there, then what is there now. */
function inWords(element, before, after) {
  const parts = compare(words(before), words(after));
  for (let at = 0; at < parts.length; ) {
    if (parts[at][0] === "same") {
      element.append(parts[at++][1].join(""));
      continue;
    }
    let cut = "", added = "";
    for (; at < parts.length && (parts[at][0] !== "same" || isGap(parts, at)); at++) {
      const text = parts[at][1].join("");
      if (parts[at][0] !== "ins") cut += text;
      if (parts[at][0] !== "del") added += text;
    }
    if (cut) element.append(node("del", "", cut));
    if (added) element.append(node("ins", "", added));
  }
}

const isGap = (parts, at) => at + 1 < parts.length && !parts[at][1].join("").trim() && !parts[at][1].join("").includes("\n");

function same(element, items, first, last) {
  const head = first ? [] : items.slice(0, CONTEXT), tail = last ? [] : items.slice(-CONTEXT);
  const hidden = items.length - head.length - tail.length;
  if (hidden < 2) return element.append(items.join(""));
  element.append(head.join(""), node("span", "skipped", `… ${hidden} unchanged lines …\n`), tail.join(""));
}

function node(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}
