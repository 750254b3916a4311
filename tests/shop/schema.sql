-- The tables of the naive shop, as small as the shops of the field are large. There is no unique key that would
-- forbid a second payment: the point of this shop is that nothing but its PHP stands between a duplicate and money.

CREATE TABLE products (
    id    INT PRIMARY KEY,
    stock INT NOT NULL
);

-- The cart of a shopper. A row of its own instead of PHP's session files, as WooCommerce and Magento keep it: PHP's
-- file handler locks a session for the whole script and would hide the race that these shops really have.
CREATE TABLE sessions (
    id         VARCHAR(64) PRIMARY KEY,
    product_id INT NULL
);

CREATE TABLE orders (
    id         INT PRIMARY KEY AUTO_INCREMENT,
    session_id VARCHAR(64) NOT NULL,
    product_id INT         NOT NULL,
    status     VARCHAR(16) NOT NULL
);

CREATE TABLE payments (
    id       INT PRIMARY KEY AUTO_INCREMENT,
    order_id INT         NOT NULL,
    source   VARCHAR(16) NOT NULL,
    receipt  CHAR(16)    NOT NULL
);
