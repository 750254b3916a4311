<?php
/**
 * What the three pages of the naive shop share: the database, the gateway, and the one function that takes money.
 *
 * It is wrong on purpose, in the way that shops are wrong: it reads whether an order is paid, waits for somebody
 * else, and then writes. It never takes a lock, never opens a transaction and never asks again before it writes.
 */

declare(strict_types=1);

function database(): PDO
{
    static $database = null;
    $database ??= new PDO(
        'mysql:unix_socket=' . getenv('SHOP_DATABASE_SOCKET') . ';dbname=shop;charset=utf8mb4',
        'shop',
        getenv('SHOP_DATABASE_PASSWORD'),
        [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC],
    );
    return $database;
}

/** Runs one statement; each stands alone, as nothing in this shop is a transaction. */
function query(string $sql, array $values = []): PDOStatement
{
    $statement = database()->prepare($sql);
    $statement->execute($values);
    return $statement;
}

function find_order(int $id): ?array
{
    return query('SELECT id, product_id, status FROM orders WHERE id = ?', [$id])->fetch() ?: null;
}

/** The payment provider: 200 to 500 ms away, and it never says no. The receipt differs from call to call. */
function call_gateway(): string
{
    usleep(random_int(200_000, 500_000));
    return bin2hex(random_bytes(8));
}

/**
 * Takes the money for an order and returns whether this very call has done so.
 *
 * Between the read of the status and the write of it lies the call of the gateway: that is the race. The stock is
 * decremented in SQL, so that what is missing from it afterwards counts the runs exactly.
 */
function pay_order(int $id, string $source): bool
{
    $order = find_order($id);
    if ($order === null || $order['status'] === 'paid') {
        return false;
    }
    $receipt = call_gateway();
    query("UPDATE orders SET status = 'paid' WHERE id = ?", [$id]);
    query('UPDATE products SET stock = stock - 1 WHERE id = ?', [$order['product_id']]);
    query('INSERT INTO payments (order_id, source, receipt) VALUES (?, ?, ?)', [$id, $source, $receipt]);
    return true;
}

/** The receipt that the shop shows: of the first payment, for it cannot imagine that there is a second one. */
function receipt_of(int $id): string
{
    return (string) query('SELECT receipt FROM payments WHERE order_id = ? ORDER BY id LIMIT 1', [$id])->fetchColumn();
}

function answer(int $status, string $type, string $body): never
{
    http_response_code($status);
    header("Content-Type: $type");
    header('Cache-Control: no-cache, no-store, private');
    echo $body;
    exit;
}

function answer_json(array $members): never
{
    answer(200, 'application/json', json_encode($members, JSON_THROW_ON_ERROR));
}
