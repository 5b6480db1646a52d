//! Rounds to one table: medians with their spread, ratios within a round, everything that
//! went wrong. Only ratios within one run of the program mean something on a shared machine.

use std::fmt::Write;

use crate::load::{Latency, Tally};
use crate::measure::Run;
use crate::subject::Kind;

/// The figure a scenario asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// CPU µs of the connection threads per operation: less is better.
    Cpu,
    /// Operations a second: more is better.
    Rate,
    /// Bytes of anonymous memory per connection: less is better.
    Memory,
    /// Latency below which 99 % lie, in milliseconds: less is better.
    P99,
    /// One of the facts of a run: less is better.
    Fact(&'static str),
}

/// All runs of a scenario with one size.
pub struct Series {
    /// Heading: scenario and size.
    pub title: String,
    /// The question, and what the operations are.
    pub question: String,
    /// What is compared.
    pub figure: Figure,
    /// What ratios are taken to.
    pub reference: Kind,
    /// What more ratios are taken to, of those whose clients do the same.
    pub further: Vec<Kind>,
    /// Rounds; each has a run of every subject that could run.
    pub rounds: Vec<Vec<Run>>,
    /// Runs that ended without a result: what, in which round, and why.
    pub failures: Vec<String>,
}

/// Median and range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Middle value, the mean of the two middle ones.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

impl Figure {
    /// One line for one run, as it comes.
    pub fn line(self, run: &Run) -> String {
        let mut line = format!("{}: {} {}", run.kind.name(), self.heading(), short(Some(self.of(run))));
        if let Some(frames) = run.frames_per_write {
            line += &format!(", {frames:.2} frames a write");
        }
        if let Some(sends) = run.sends {
            line += &format!(", {sends:.2} sends each");
        }
        if let Some(why) = &run.rejected {
            line += &format!(", rejected: {why}");
        }
        line
    }

    /// Its value in one run.
    pub fn of(self, run: &Run) -> f64 {
        match self {
            Self::Cpu => run.shard_us(),
            Self::Rate => run.per_second(),
            Self::Memory => run.bytes_per_connection.unwrap_or_default(),
            Self::P99 => run.found.latency.quantile_ms(0.99),
            Self::Fact(name) => run.fact(name).unwrap_or_default(),
        }
    }

    /// Its name and unit.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Cpu => "CPU µs",
            Self::Rate => "per second",
            Self::Memory => "bytes each",
            Self::P99 => "p99 ms",
            Self::Fact(name) => name,
        }
    }
}

impl Series {
    /// Subjects in the order of the first round.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.rounds.iter().flatten().map(|run| run.kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// Runs of one subject that count.
    pub fn accepted(&self, kind: Kind) -> impl Iterator<Item = &Run> {
        self.all(kind).filter(|run| run.rejected.is_none())
    }

    /// The figure of `kind`, over the runs that count.
    pub fn figure_of(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.accepted(kind).map(|run| self.figure.of(run)))
    }

    /// The latencies of `kind`, of all runs that count together.
    pub fn latency(&self, kind: Kind) -> Latency {
        let mut latency = Latency::new();
        self.accepted(kind).for_each(|run| latency.add(&run.found.latency));
        latency
    }

    /// The figure of `kind` over that of `reference`, round by round, where both count;
    /// `None` for two that are not compared.
    pub fn ratio(&self, kind: Kind, reference: Kind) -> Option<Spread> {
        let compared = if reference == self.reference {
            kind != reference
        } else {
            let referred = kind == self.reference || self.further.contains(&kind);
            self.further.contains(&reference) && !referred && kind.is_v1() == reference.is_v1()
        };
        compared.then(|| {
            self.pairs(kind, reference, |own, reference| {
                Some(self.figure.of(own) / self.figure.of(reference))
            })
        })?
    }

    /// A number of each round in which both count.
    fn pairs(
        &self,
        kind: Kind,
        reference: Kind,
        number: impl Fn(&Run, &Run) -> Option<f64>,
    ) -> Option<Spread> {
        let pairs = self.rounds.iter().filter_map(|round| {
            let counts = |wanted| round.iter().find(|run| run.kind == wanted && run.rejected.is_none());
            number(counts(kind)?, counts(reference)?)
        });
        Spread::of(pairs)
    }

    /// What ratios are taken to, in the order of their columns.
    fn references(&self) -> impl Iterator<Item = Kind> {
        std::iter::once(self.reference).chain(self.further.iter().copied())
    }

    /// Do the runs tell how many sends an operation took?
    fn tells_sends(&self) -> bool {
        self.rounds.iter().flatten().any(|run| run.sends.is_some())
    }

    /// The table in Markdown.
    pub fn render(&self) -> String {
        let mut out = format!("### {}\n\n{}\n\n", self.title, self.question);
        let columns = self.columns();
        writeln!(out, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len())).expect(INTO_STRING);
        for kind in self.kinds() {
            writeln!(out, "| {} |", self.row(kind).join(" | ")).expect(INTO_STRING);
        }
        self.render_facts(&mut out);
        for failure in &self.failures {
            writeln!(out, "\nfailed: {failure}").expect(INTO_STRING);
        }
        for (round, run) in self.rounds.iter().enumerate().flat_map(|(round, runs)| {
            runs.iter().filter(|run| run.rejected.is_some()).map(move |run| (round, run))
        }) {
            let why = run.rejected.as_deref().unwrap_or_default();
            let (figure, name) = (short(Some(self.figure.of(run))), run.kind.name());
            let heading = self.figure.heading();
            writeln!(out, "\nrejected: round {}, {name}, {heading} {figure}: {why}", round + 1)
                .expect(INTO_STRING);
        }
        out
    }

    fn columns(&self) -> Vec<String> {
        let mut columns =
            vec!["subject".to_owned(), "runs".into(), self.figure.heading().into(), "range".into()];
        for reference in self.references() {
            let several = !self.further.is_empty();
            columns.push(if several { format!("ratio to {}", reference.name()) } else { "ratio".into() });
            columns.push("range".into());
        }
        columns.extend(["process CPU µs", "per second", "per core s", "frames/write"].map(String::from));
        if self.tells_sends() {
            columns.push("sends each".into());
        }
        let latency = ["p50 ms", "p99", "p99.9", "max"];
        let wrong = ["lost", "dup", "reord"];
        let busy = ["server %", "client %", "others %"];
        columns.extend(latency.into_iter().chain(wrong).chain(busy).map(String::from));
        columns
    }

    /// What the runs that count have seen besides, in the order in which they tell it. Where
    /// none counts, all tell: a demotion is one in a run that others spoilt, too.
    fn render_facts(&self, out: &mut String) {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rounds.iter().flatten().flat_map(|run| &run.facts) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let mut rows = String::new();
        for name in names {
            for kind in self.kinds() {
                let counts = self.accepted(kind).next().is_some();
                let told = self.all(kind).filter(|run| run.rejected.is_none() || !counts);
                let Some(spread) = Spread::of(told.filter_map(|run| run.fact(name))) else { continue };
                let mark = if counts { "" } else { ", rejected" };
                let (median, range) = (short(Some(spread.median)), range(Some(spread)));
                let more = self.pairs(kind, self.reference, |own, reference| {
                    Some(own.fact(name)? - reference.fact(name)?)
                });
                let more = short(more.filter(|_| kind != self.reference).map(|more| more.median));
                writeln!(rows, "| {name} | {}{mark} | {median} | {range} | {more} |", kind.name())
                    .expect(INTO_STRING);
            }
        }
        if !rows.is_empty() {
            out.push_str(
                "\n| besides | subject | median | range | more than the reference |\n|---|---|---|---|---|\n",
            );
            out.push_str(&rows);
        }
    }

    fn row(&self, kind: Kind) -> Vec<String> {
        let all: Vec<&Run> = self.all(kind).collect();
        let accepted: Vec<&Run> = self.accepted(kind).collect();
        let spread = |value: &dyn Fn(&Run) -> f64| Spread::of(accepted.iter().map(|run| value(run)));
        let median = |value: &dyn Fn(&Run) -> f64| short(spread(value).map(|spread| spread.median));
        let figure = self.figure_of(kind);
        let frames = Spread::of(accepted.iter().filter_map(|run| run.frames_per_write));
        let latency = self.latency(kind);
        // Nothing may hide in a rejected run.
        let mut tally = Tally::default();
        all.iter().for_each(|run| tally.add(run.found.tally));
        let quantile = |share: f64| match latency.count() {
            0 => "–".to_owned(),
            _ => short(Some(latency.quantile_ms(share))),
        };
        let mut row = vec![
            kind.name().to_owned(),
            format!("{}/{}", accepted.len(), all.len()),
            short(figure.map(|figure| figure.median)),
            range(figure),
        ];
        for reference in self.references() {
            let ratio = self.ratio(kind, reference);
            row.push(ratio.map_or("–".to_owned(), |ratio| format!("{:.2}", ratio.median)));
            row.push(ratio.map_or("–".to_owned(), |ratio| format!("{:.2}–{:.2}", ratio.min, ratio.max)));
        }
        row.extend([
            median(&Run::process_us),
            median(&Run::per_second),
            median(&Run::per_core_second),
            short(frames.map(|frames| frames.median)),
        ]);
        if self.tells_sends() {
            let sends = Spread::of(accepted.iter().filter_map(|run| run.sends));
            row.push(short(sends.map(|sends| sends.median)));
        }
        row.extend([
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            if latency.count() == 0 { "–".to_owned() } else { short(Some(latency.max_ms())) },
            tally.lost.to_string(),
            tally.duplicated.to_string(),
            tally.reordered.to_string(),
            median(&|run| run.cost.share(run.cost.process_ns) * 100.0),
            median(&|run| run.cost.share(run.cost.client_ns) * 100.0),
            median(&|run| run.cost.share(run.cost.others_ns) * 100.0),
        ]);
        row
    }

    fn all(&self, kind: Kind) -> impl Iterator<Item = &Run> {
        self.rounds.iter().flatten().filter(move |run| run.kind == kind)
    }
}

/// Three digits that matter.
pub(crate) fn short(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn range(spread: Option<Spread>) -> String {
    spread
        .map_or("–".to_owned(), |spread| format!("{}–{}", short(Some(spread.min)), short(Some(spread.max))))
}

const INTO_STRING: &str = "a String takes every byte";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::fleet::Found;
    use crate::measure::Cost;

    fn run(kind: Kind, shard_ns: u64, rejected: bool) -> Run {
        Run {
            kind,
            operations: 1,
            cost: Cost { shard_ns, wall_ns: 1, ..Cost::default() },
            found: Found { tally: Tally { lost: 1, ..Tally::default() }, ..Found::default() },
            bytes_per_connection: None,
            frames_per_write: None,
            sends: None,
            facts: Vec::new(),
            rejected: rejected.then(|| "too slow".to_owned()),
        }
    }

    fn series(rounds: Vec<Vec<Run>>) -> Series {
        let (title, question) = ("t".into(), "q".into());
        let failures = vec!["round 1: no answer".into()];
        let (reference, further) = (Kind::FloorSend, Vec::new());
        Series { title, question, figure: Figure::Cpu, reference, further, rounds, failures }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round_and_only_of_runs_that_count() {
        let (floor, gateway) = (Kind::FloorSend, Kind::Gateway);
        let series = series(vec![
            vec![run(floor, 1_000, false), run(gateway, 2_000, false)],
            vec![run(floor, 10_000, false), run(gateway, 30_000, false)],
            vec![run(floor, 1_000, true), run(gateway, 9_000, false)],
        ]);
        assert_eq!(series.ratio(gateway, floor), Some(Spread { median: 2.5, min: 2.0, max: 3.0 }));
        let table = series.render();
        assert!(table.contains("| floor: send(2) | 2/3 |"), "{table}");
        assert!(table.contains("rejected: round 3, floor: send(2), CPU µs 1.00: too slow"), "{table}");
    }

    #[test]
    fn further_ratios_are_of_the_same_clients_and_each_row_has_as_many_cells_as_the_heading() {
        let (floor, one_send, v1) = (Kind::FloorSend, Kind::FloorOneSend, Kind::FloorV1);
        let kinds = [floor, one_send, v1, Kind::Baseline, Kind::Gateway, Kind::GatewayV1];
        let costs = [4_000, 2_000, 5_000, 8_000, 6_000, 10_000];
        let mut round: Vec<Run> =
            kinds.into_iter().zip(costs).map(|(kind, ns)| run(kind, ns, false)).collect();
        round[0].sends = Some(2.0);
        let series = Series { further: vec![one_send, v1], ..series(vec![round]) };
        let ratio = |kind, reference| series.ratio(kind, reference).map(|ratio| ratio.median);
        assert_eq!(
            kinds.map(|kind| ratio(kind, floor)),
            [None, Some(0.5), Some(1.25), Some(2.0), Some(1.5), Some(2.5)]
        );
        assert_eq!(kinds.map(|kind| ratio(kind, one_send)), [None, None, None, Some(4.0), Some(3.0), None]);
        assert_eq!(kinds.map(|kind| ratio(kind, v1)), [None, None, None, None, None, Some(2.0)]);
        let table = series.render();
        let cells: Vec<usize> = table
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells.len(), 2 + kinds.len());
        assert!(cells.iter().all(|count| *count == cells[0]), "{table}");
        assert!(table.contains("| ratio to floor: v1 clients | range |"), "{table}");
        assert!(table.contains("| sends each |"), "{table}");
    }

    #[test]
    fn losses_of_rejected_runs_are_told() {
        let series = series(vec![vec![run(Kind::Gateway, 1, true)]]);
        let table = series.render();
        assert!(table.contains("| 1 | 0 | 0 |") && table.contains("failed: round 1: no answer"), "{table}");
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(Spread::of([4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([9.0, 1.0, 4.0]).unwrap().median, 4.0);
        assert_eq!(Spread::of([]), None);
    }
}
