//! An answer as text, for somebody who was woken by it.

use std::{fmt::Write, time::Duration};

use serde_json::Value;

const IN_DOUBT: &str = "\
In doubt: it was sent to the shop and no answer is known. Look in the shop whether the order is there, then say so:
  oncegate orders resolve KEY --as done   it is there: the same request again is refused, and not sent
  oncegate orders resolve KEY --as free   it is not there: the next duplicate goes to the shop
";

/// The table, and what to do next.
pub(super) fn orders(said: &Value, key: Option<&str>) -> String {
    let rows: Vec<&Value> = said["orders"].as_array().into_iter().flatten().collect();
    let mut text = table(&rows);
    if rows.is_empty() {
        match key {
            None => text.push_str("nothing is under way here, and nothing is known to be in doubt\n"),
            Some(_) => text.push_str("nothing of that name is under way, in doubt or kept\n"),
        }
    }
    if said["cut"] == true {
        text.push_str(
            "There is more than is shown here; the log names every order. Ask for one by its KEY.\n",
        );
    }
    match (said["store_error"].as_str(), text_of(&said["store"])) {
        (Some(error), _) => {
            let _ = writeln!(text, "The store could not be asked ({error}): what is in doubt may be over.");
        }
        (None, "up") => {}
        (None, standing) => {
            let _ = writeln!(text, "The store is {standing}: only what this process knows is shown.");
        }
    }
    text.push_str(&history(said));
    if rows.iter().any(|row| text_of(&row["state"]).starts_with("in-doubt")) {
        text.push('\n');
        text.push_str(IN_DOUBT);
    }
    text
}

/// What became of the last requests, where one order was asked for.
fn history(said: &Value) -> String {
    let flown: Vec<&Value> = said["history"].as_array().into_iter().flatten().collect();
    if flown.is_empty() {
        return String::new();
    }
    let mut text = "\nWhat became of its last requests in this process, newest first:\n".to_owned();
    for one in flown {
        let length = |name: &str| one[name].as_u64().map_or_else(|| "-".to_owned(), seconds);
        let fence = one["fence"].as_u64().map_or_else(String::new, |fence| format!(", fence {fence}"));
        let (ago, came, route) = (length("ago_ms"), text_of(&one["came_to"]), text_of(&one["route"]));
        let _ = writeln!(text, "  {ago} ago  {came}  {route}{fence}");
    }
    text
}

fn table(rows: &[&Value]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines =
        vec![["ORDER", "STATE", "SINCE", "ENDS IN", "FENCE", "ROUTE", "WAITING"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| cells(row)));
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn cells(row: &Value) -> [String; 7] {
    let number = |name: &str| row[name].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let length = |name: &str| row[name].as_u64().map_or_else(|| "-".to_owned(), seconds);
    let state = match text_of(&row["state"]) {
        "in-doubt" => "IN DOUBT",
        "in-doubt-unconfirmed" => "IN DOUBT (not confirmed)",
        "at-shop" => "at the shop",
        "at-shop-elsewhere" => "at the shop (not by this process)",
        other => other,
    };
    let state = match (row["status"].as_u64(), row["delivered"].as_bool()) {
        (Some(status), Some(true)) => format!("answer {status} is kept"),
        (Some(status), _) => format!("answer {status} is kept, no client has it"),
        (None, _) => state.to_owned(),
    };
    let place = match (row["route"].as_str(), row["upstream"].as_str()) {
        (Some(route), Some(upstream)) => format!("{route} -> {upstream}"),
        (None, Some(upstream)) => format!("-> {upstream}"),
        (Some(_) | None, None) => "-".to_owned(),
    };
    let order = text_of(&row["order"]).to_owned();
    [order, state, length("since_ms"), length("ends_in_ms"), number("fence"), place, number("clients")]
}

/// Whole seconds: nobody decides anything by less.
fn seconds(millis: u64) -> String {
    humantime::format_duration(Duration::from_secs(millis / 1000)).to_string()
}

pub(super) fn resolved(said: &Value) -> String {
    let which = which(said);
    match said["refused_for_ms"].as_u64() {
        Some(millis) => format!(
            "{which}: done. The same request again is refused with `resolved-done` for {} (the longest `replay_for` of the \
             upstream's routes), and not sent.\n",
            seconds(millis)
        ),
        None => format!("{which}: free. The next request for it goes to the shop.\n"),
    }
}

pub(super) fn forgotten(said: &Value) -> String {
    let mut text = String::new();
    for place in said["at"].as_array().into_iter().flatten() {
        let count = place["records"].as_u64().unwrap_or(0);
        let _ = writeln!(text, "{}: {count} kept and forgotten.", which(place));
    }
    text.push_str("The same request again is a new one, and goes to the shop.\n");
    text
}

pub(super) fn refused(status: u16, said: &Value) -> String {
    let message = said["message"].as_str().or_else(|| said.as_str()).unwrap_or("it does not say why");
    let mut text = format!("oncegate: {message}\n");
    for place in said["which"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  {}  {}", text_of(&place["lane"]), which(place));
    }
    match status {
        401 => text.push_str("oncegate: give the token of [admin] with --token-file FILE\n"),
        404 if said.is_string() => text.push_str("oncegate: is this an older version of oncegate?\n"),
        _ => {}
    }
    text
}

fn which(place: &Value) -> String {
    match place["upstream"].as_str() {
        Some(upstream) => format!("{} at {upstream}", text_of(&place["order"])),
        None => text_of(&place["order"]).to_owned(),
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_straight_columns_and_says_what_to_do_next() {
        let row = |order: &str, state: &str, fence: u64| {
            json!({
                "order": order, "state": state, "route": "checkout", "upstream": "shop", "fence": fence,
                "since_ms": 200_500, "ends_in_ms": null, "clients": 2,
            })
        };
        let rows = [row("WC-1", "in-doubt", 17), row("WC-22", "at-shop", 9)];
        let text = orders(&json!({ "store": "up", "cut": false, "orders": rows }), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ORDER  STATE        SINCE   ENDS IN  FENCE  ROUTE             WAITING");
        assert_eq!(lines[1], "WC-1   IN DOUBT     3m 20s  -        17     checkout -> shop  2");
        assert_eq!(lines[2], "WC-22  at the shop  3m 20s  -        9      checkout -> shop  2");
        assert!(text.contains("--as done") && text.contains("--as free"));
        let calm = orders(&json!({ "store": "up", "cut": false, "orders": [rows[1]] }), None);
        assert!(!calm.contains("--as"), "{calm}");
    }
}
