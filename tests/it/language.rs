//! What an operator can say about requests and answers, through the whole gate: sources, judgements, refusals in a
//! shop's own words, renewal.

mod judging;
