//! The demo's table, as text and as JSON. Plain ASCII, at most 80 columns.

use std::fmt::Write;

use serde_json::{Value, json};

use super::storm::{Outcome, Pattern};

/// A pattern, both ways.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Row {
    pub pattern: Pattern,
    pub direct: Outcome,
    pub gate: Outcome,
}

/// Whether everything that went through the gate was paid for once and answered alike.
pub(super) fn is_right(rows: &[Row], orders: u32) -> bool {
    rows.iter().all(|row| row.gate.is_right(orders))
}

pub(super) fn text(rows: &[Row], orders: u32) -> String {
    let mut out = String::new();
    let side = |outcome: &Outcome| {
        let Outcome { orders, charges, stock, seconds, .. } = outcome;
        format!("{orders:>6} {charges:>7} {stock:>5} {seconds:>5.1}")
    };
    let title = format!("{orders} purchases each");
    let sides = format!("{:19} | {:^26} | {:^26}", "", "direct to the shop", "through oncegate");
    let _ = writeln!(out, "{}", sides.trim_end());
    let heads = format!("{:>6} {:>7} {:>5} {:>5}", "orders", "charges", "stock", "sec");
    let _ = writeln!(out, "{title:19} | {heads} | {heads}");
    let _ = writeln!(out, "{:-<19}-+-{:-<26}-+-{:-<26}", "", "", "");
    for row in rows {
        let _ = writeln!(out, "{:19} | {} | {}", row.pattern.name(), side(&row.direct), side(&row.gate));
    }
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let bought = u64::from(orders) * rows.len() as u64;
    let (direct, gate) = (sum(|row| row.direct.charges), sum(|row| row.gate.charges));
    let _ = writeln!(
        out,
        "\n{bought} purchases were charged {direct} times directly, {gate} times through oncegate."
    );
    if !is_right(rows, orders) {
        let _ = writeln!(
            out,
            "oncegate has let a duplicate through, or told different clients different things."
        );
    }
    out
}

pub(super) fn to_json(rows: &[Row], orders: u32) -> Value {
    let patterns: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "pattern": row.pattern.name(), "direct": row.direct, "gate": row.gate }))
        .collect();
    json!({ "purchases": orders, "right": is_right(rows, orders), "patterns": patterns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(charges: u64, seconds: f64, answers_equal: bool) -> Outcome {
        Outcome { orders: 20, charges, stock: charges, seconds, answers_equal }
    }

    fn rows(gate: Outcome) -> Vec<Row> {
        vec![Row { pattern: Pattern::CallbackBurst, direct: outcome(98, 0.512, false), gate }]
    }

    #[test]
    fn the_columns_stand_below_their_names() {
        let shown = text(&rows(outcome(20, 12.04, true)), 20);
        let expected = "                    \
                        |     direct to the shop     |      through oncegate\n\
            20 purchases each   | orders charges stock   sec | orders charges stock   sec\n\
            --------------------+----------------------------+---------------------------\n\
            5 callbacks at once |     20      98    98   0.5 |     20      20    20  12.0\n\
            \n20 purchases were charged 98 times directly, 20 times through oncegate.\n";
        assert_eq!(shown, expected);
        assert!(shown.is_ascii() && shown.lines().all(|line| line.len() <= 80), "{shown}");
    }

    #[test]
    fn one_charge_too_many_or_too_few_or_unequal_answers_are_not_right() {
        assert!(is_right(&rows(outcome(20, 1.0, true)), 20));
        for wrong in [outcome(21, 1.0, true), outcome(19, 1.0, true), outcome(20, 1.0, false)] {
            assert!(!is_right(&rows(wrong), 20));
            assert!(text(&rows(wrong), 20).contains("let a duplicate through"));
            assert_eq!(to_json(&rows(wrong), 20)["right"], false);
        }
    }
}
