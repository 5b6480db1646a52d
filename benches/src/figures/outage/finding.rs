//! What one trial found, as Markdown: a table of limits, one of times, and notes. Pure.

use std::fmt::Write;

use crate::chaos::judge::Check;
use crate::load::Latency;

/// One trial.
#[derive(Clone, Debug, Default)]
pub(super) struct Finding {
    title: String,
    pub(super) checks: Vec<Check>,
    times: Vec<(String, Latency)>,
    notes: Vec<String>,
}

impl Finding {
    /// Nothing yet.
    pub(super) fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    /// A trial that could not be made, or not to its end.
    pub(super) fn not_made(title: String, error: &anyhow::Error) -> Self {
        let found = format!("{error:#}").replace('\n', " ");
        let check = Check { name: "made to its end", limit: "yes".into(), found, kept: false };
        Self { checks: vec![check], ..Self::new(title) }
    }

    pub(super) fn check(&mut self, check: Check) {
        self.checks.push(check);
    }

    pub(super) fn time(&mut self, what: String, latency: Latency) {
        self.times.push((what, latency));
    }

    pub(super) fn note(&mut self, sentence: String) {
        self.notes.push(sentence);
    }

    /// Every limit.
    pub(super) fn kept(&self) -> bool {
        self.checks.iter().all(|check| check.kept)
    }

    /// A section of Markdown.
    pub(super) fn render(&self) -> String {
        let mut out = format!("\n## {}\n\n| limit | asked | found | |\n|---|---|---|---|\n", self.title);
        for Check { name, limit, found, kept } in &self.checks {
            let kept = if *kept { "kept" } else { "**MISSED**" };
            writeln!(out, "| {name} | {limit} | {found} | {kept} |").expect(INTO_STRING);
        }
        if !self.times.is_empty() {
            out += "\n| time | number | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|\n";
        }
        for (what, latency) in &self.times {
            let (p50, p99) = (latency.quantile_ms(0.5), latency.quantile_ms(0.99));
            let (count, max) = (latency.count(), latency.max_ms());
            writeln!(out, "| {what} | {count} | {p50:.2} | {p99:.2} | {max:.2} |").expect(INTO_STRING);
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            writeln!(out, "- {note}").expect(INTO_STRING);
        }
        out
    }
}

/// What must not happen.
pub(super) fn none(name: &'static str, found: u64) -> Check {
    Check { name, limit: "0".into(), found: found.to_string(), kept: found == 0 }
}

/// What must happen to all.
pub(super) fn all(name: &'static str, found: u64, of: u64) -> Check {
    Check { name, limit: of.to_string(), found: found.to_string(), kept: found == of }
}

/// What may take so many seconds; `None`: it never happened.
pub(super) fn seconds(name: &'static str, most: f64, found: Option<f64>) -> Check {
    Check {
        name,
        limit: format!("≤ {most} s"),
        found: found.map_or("never".into(), |found| format!("{found:.2} s")),
        kept: found.is_some_and(|found| found <= most),
    }
}

const INTO_STRING: &str = "a String takes every byte";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_include_their_border_and_never_is_too_late() {
        assert!(seconds("x", 10.0, Some(10.0)).kept);
        assert!(!seconds("x", 10.0, Some(10.01)).kept);
        assert!(!seconds("x", 10.0, None).kept);
        assert!(none("x", 0).kept && !none("x", 1).kept);
        assert!(all("x", 2, 2).kept && !all("x", 1, 2).kept);
    }

    #[test]
    fn one_missed_limit_is_shown_and_spoils_the_trial() {
        let mut finding = Finding::new("a part away".into());
        finding.check(none("lost", 0));
        finding.note("a note".into());
        assert!(finding.kept());
        finding.check(none("doubled", 3));
        assert!(!finding.kept());
        let text = finding.render();
        assert!(text.contains("| lost | 0 | 0 | kept |\n| doubled | 0 | 3 | **MISSED** |"), "{text}");
        assert!(text.contains("\n- a note\n") && !text.contains("p50"), "{text}");
        assert!(!Finding::not_made("x".into(), &anyhow::anyhow!("no")).kept());
    }
}
