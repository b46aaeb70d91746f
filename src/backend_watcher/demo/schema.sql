-- The shop. Amounts are in rupiah, whole ones.

CREATE TABLE sellers (
    id   bigint PRIMARY KEY,
    name text NOT NULL
);

-- `version` counts the row's changes of stock. An order for more than there is is taken, too, and waits for the next
-- delivery of goods: stock may fall below zero.
CREATE TABLE products (
    id         bigint PRIMARY KEY,
    seller_id  bigint NOT NULL REFERENCES sellers,
    name       text NOT NULL,
    price      bigint NOT NULL CHECK (price > 0),
    stock      integer NOT NULL,
    version    integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- A handler that must see "from 5 or more to less than 5" needs the stock before the change as well.
ALTER TABLE products REPLICA IDENTITY FULL;

CREATE TABLE wallets (
    id         bigint PRIMARY KEY,
    label      text NOT NULL,
    balance    bigint NOT NULL,
    version    integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    wallet_id bigint NOT NULL REFERENCES wallets,
    total     bigint NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE order_lines (
    order_id   bigint NOT NULL REFERENCES orders,
    product_id bigint NOT NULL,
    seller_id  bigint NOT NULL,
    quantity   integer NOT NULL CHECK (quantity > 0),
    amount     bigint NOT NULL,
    PRIMARY KEY (order_id, product_id)
);

-- Every change of a stock, written in its transaction: what the proof recomputes the crossings from. Nobody watches it.
CREATE TABLE stock_moves (
    product_id bigint NOT NULL,
    version    integer NOT NULL,
    quantity   integer NOT NULL,
    PRIMARY KEY (product_id, version)
);

-- A figure kept up to date, and the position of the newest change that is in it: they are stored together or not at all.
CREATE TABLE seller_revenue (
    seller_id bigint PRIMARY KEY REFERENCES sellers,
    revenue   bigint NOT NULL DEFAULT 0
);

CREATE TABLE revenue_position (
    name       text PRIMARY KEY,
    commit_lsn bigint NOT NULL,
    ordinal    integer NOT NULL
);
