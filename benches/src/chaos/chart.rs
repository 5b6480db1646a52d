//! The timeline as SVG: offered, acknowledged and delivered per second, a band per fault.

use std::fmt::Write;

use super::campaign::FaultRecord;
use super::ledger::Second;

/// Draws it.
pub fn timeline(seconds: &[Second], faults: &[FaultRecord]) -> String {
    let mut out = String::new();
    let end = seconds.len().max(1) as f64;
    let (messages, deliveries) = (
        highest(seconds.iter().map(|second| second.offered.max(second.acked))),
        highest(seconds.iter().map(|second| second.live + second.resumed)),
    );
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">"#
    )
    .expect(INTO_STRING);
    writeln!(out, r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#).expect(INTO_STRING);
    for fault in faults {
        band(&mut out, fault, end);
    }
    let top = Panel { title: "messages a second", y: 30.0, highest: messages };
    let below = Panel { title: "deliveries a second", y: 30.0 + PANEL + 60.0, highest: deliveries };
    for panel in [&top, &below] {
        panel.frame(&mut out, end);
    }
    top.line(&mut out, "offered", "#888888", 0, seconds.iter().map(|second| second.offered));
    top.line(&mut out, "acknowledged", "#1a7f37", 1, seconds.iter().map(|second| second.acked));
    below.line(&mut out, "live", "#0b5cad", 0, seconds.iter().map(|second| second.live));
    below.line(&mut out, "by resume or page", "#c2410c", 1, seconds.iter().map(|second| second.resumed));
    out.push_str("</svg>\n");
    out
}

struct Panel {
    title: &'static str,
    y: f64,
    highest: u64,
}

impl Panel {
    fn frame(&self, out: &mut String, end: f64) {
        let Self { title, y, highest } = self;
        let (bottom, right) = (y + PANEL, WIDTH - RIGHT);
        writeln!(
            out,
            r##"<path d="M{LEFT} {y}V{bottom}H{right}" fill="none" stroke="#444"/><text x="{LEFT}" y="{}">{title}, up to {highest}</text>"##,
            y - 6.0
        )
        .expect(INTO_STRING);
        let step = tick_seconds(end);
        let mut second = 0;
        while f64::from(second) <= end {
            let x = x_of(f64::from(second), end);
            writeln!(
                out,
                r##"<path d="M{x:.1} {bottom}v4" stroke="#444"/><text x="{x:.1}" y="{}" text-anchor="middle">{second} s</text>"##,
                bottom + 16.0
            )
            .expect(INTO_STRING);
            second += step;
        }
    }

    fn line(
        &self,
        out: &mut String,
        name: &str,
        colour: &str,
        place: u32,
        values: impl Iterator<Item = u64> + Clone,
    ) {
        let end = values.clone().count().max(1) as f64;
        let points: Vec<String> = values
            .enumerate()
            .map(|(second, value)| {
                let y = self.y + PANEL * (1.0 - value as f64 / self.highest as f64);
                format!("{:.1},{y:.1}", x_of(second as f64 + 0.5, end))
            })
            .collect();
        let x = WIDTH - RIGHT - 130.0 * f64::from(2 - place);
        writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}"/><text x="{x}" y="{}" fill="{colour}">{name}</text>"#,
            points.join(" "),
            self.y - 6.0
        )
        .expect(INTO_STRING);
    }
}

/// Red while it lasts, yellow until service is back; its name upright at the bottom.
fn band(out: &mut String, fault: &FaultRecord, end: f64) {
    let at = |ms: u64| x_of(ms as f64 / 1000.0, end);
    let (from, to) = (at(fault.injected_ms), at(fault.ended_ms));
    let back = fault.back.whole_ms().map_or(WIDTH - RIGHT, at);
    let height = HEIGHT - 120.0;
    writeln!(
        out,
        r##"<rect x="{from:.1}" y="30" width="{:.1}" height="{height}" fill="#fecaca"/><rect x="{to:.1}" y="30" width="{:.1}" height="{height}" fill="#fef3c7"/><text transform="translate({:.1} {}) rotate(-90)" text-anchor="end" font-size="10">{}</text>"##,
        to - from,
        (back - to).max(0.5),
        from + 4.0,
        HEIGHT - 82.0,
        fault.fault
    )
    .expect(INTO_STRING);
}

fn x_of(second: f64, end: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * second / end
}

fn highest(values: impl Iterator<Item = u64>) -> u64 {
    values.max().unwrap_or(0).max(1)
}

/// About ten marks.
fn tick_seconds(end: f64) -> u32 {
    [5, 10, 30, 60, 120, 300, 600].into_iter().find(|step| end / f64::from(*step) <= 12.0).unwrap_or(1_800)
}

const WIDTH: f64 = 1_400.0;
const HEIGHT: f64 = 560.0;
const PANEL: f64 = 160.0;
const LEFT: f64 = 30.0;
const RIGHT: f64 = 20.0;
const INTO_STRING: &str = "a String takes every byte";

#[cfg(test)]
mod tests {
    use super::super::judge::tests::outcome;
    use super::*;

    #[test]
    fn a_band_per_fault_and_four_lines() {
        let outcome = outcome();
        let chart = timeline(&outcome.book.seconds, &outcome.faults);
        assert_eq!(chart.matches("<polyline").count(), 4);
        assert_eq!(chart.matches("kill redis").count(), 1);
        assert!(chart.starts_with("<svg") && chart.ends_with("</svg>\n"), "{chart}");
    }

    #[test]
    fn nothing_at_all_is_drawn_too() {
        assert!(timeline(&[], &[]).contains("up to 1<"));
    }
}
