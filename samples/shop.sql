-- A shop for outdoor gear, October 2026. `holdfast dev` makes var/samples/shop.db of it.
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price_usd TEXT NOT NULL, since DATE NOT NULL);
CREATE TABLE orders (id TEXT PRIMARY KEY, product_id INTEGER NOT NULL REFERENCES products (id), customer TEXT NOT NULL,
    quantity INTEGER NOT NULL, ordered DATE NOT NULL);
CREATE TABLE returns (order_id TEXT PRIMARY KEY REFERENCES orders (id), returned DATE NOT NULL, reason TEXT NOT NULL);
CREATE TABLE refunds (idempotency_key TEXT PRIMARY KEY, order_id TEXT NOT NULL REFERENCES orders (id),
    amount_usd TEXT NOT NULL, reason TEXT NOT NULL, made DATE NOT NULL);
INSERT INTO products VALUES
    (1, 'Trail lamp', '39.00', '2026-08-15'), (2, 'Storm tent', '249.00', '2025-03-01'),
    (3, 'Camp stove', '64.00', '2024-11-20'), (4, 'Dry bag', '18.50', '2025-06-10');
INSERT INTO orders VALUES
    ('A-1001', 1, 'c17', 1, '2026-10-01'), ('A-1002', 1, 'c21', 2, '2026-10-02'), ('A-1003', 2, 'c04', 1, '2026-10-03'),
    ('A-1004', 1, 'c33', 1, '2026-10-05'), ('A-1005', 3, 'c17', 1, '2026-10-06'), ('A-1006', 1, 'c40', 1, '2026-10-08'),
    ('A-1007', 4, 'c52', 3, '2026-10-09'), ('A-1008', 1, 'c08', 1, '2026-10-12'), ('A-1009', 2, 'c61', 1, '2026-10-15'),
    ('A-1010', 1, 'c70', 1, '2026-10-19'), ('A-1011', 3, 'c33', 2, '2026-10-21'), ('A-1012', 1, 'c12', 1, '2026-10-26');
INSERT INTO returns VALUES
    ('A-1001', '2026-10-09', 'battery empty after one night'), ('A-1004', '2026-10-15', 'battery empty after one night'),
    ('A-1006', '2026-10-18', 'does not charge in the cold'), ('A-1010', '2026-10-29', 'battery empty after one night'),
    ('A-1009', '2026-10-25', 'wrong size');
