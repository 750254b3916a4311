<?php
/**
 * GET /return.php?order_id=: the shopper comes back from the payment provider's page.
 *
 * When the callback has not come yet, this page asks the provider itself and books the payment, for no shopper shall
 * read "unpaid" after paying. So a GET has the effects of the callback, and races with it.
 */

declare(strict_types=1);

require __DIR__ . '/shop.php';

$order = (int) ($_GET['order_id'] ?? 0);
if (find_order($order) === null) {
    answer(404, 'text/plain', "no such order\n");
}
pay_order($order, 'return');
$receipt = receipt_of($order);
answer(200, 'text/html; charset=utf-8', "<!doctype html><title>Thank you</title><p>Order $order, receipt $receipt.</p>\n");
