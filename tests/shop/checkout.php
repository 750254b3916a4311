<?php
/**
 * POST /checkout.php: makes an order of what lies in the session's cart and takes the money for it.
 *
 * The form names no product and no order; only the session cookie tells what is bought. A failure is HTTP 200 with
 * `"result":"failure"`, as WooCommerce does it. The cart is emptied last, when the money is long gone.
 */

declare(strict_types=1);

require __DIR__ . '/shop.php';

if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    answer(405, 'text/plain', "POST only\n");
}
$session = (string) ($_COOKIE['shop_session'] ?? '');
$product = query('SELECT product_id FROM sessions WHERE id = ?', [$session])->fetchColumn();
if (!$product) {
    answer_json(['result' => 'failure', 'messages' => 'Sorry, your session has expired.']);
}
query("INSERT INTO orders (session_id, product_id, status) VALUES (?, ?, 'pending')", [$session, $product]);
$order = (int) database()->lastInsertId();
pay_order($order, 'checkout');
query('UPDATE sessions SET product_id = NULL WHERE id = ?', [$session]);
answer_json([
    'result' => 'success',
    'redirect' => "/return.php?order_id=$order",
    'order_id' => $order,
    'receipt' => receipt_of($order),
]);
