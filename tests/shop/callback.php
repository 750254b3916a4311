<?php
/**
 * POST /callback.php: the payment provider tells that an order was paid.
 *
 * The provider sends one event several times, with one `event_id` and a counted `attempt`; the shop looks at neither.
 * It trusts the sender, which a real shop must not.
 */

declare(strict_types=1);

require __DIR__ . '/shop.php';

if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    answer(405, 'text/plain', "POST only\n");
}
$order = (int) ($_POST['order_id'] ?? 0);
if (find_order($order) === null) {
    answer(404, 'text/plain', "no such order\n");
}
$paid = pay_order($order, 'callback');
answer(200, 'text/plain', ($paid ? 'accepted ' : 'already paid ') . receipt_of($order) . "\n");
