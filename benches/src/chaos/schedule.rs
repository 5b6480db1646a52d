//! Which faults, in which order, for how long: drawn from a seed, so that a run can be
//! repeated. Pure.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

/// What is done to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// `kill -9`, and a restart at the end.
    Kill,
    /// SIGSTOP, and SIGCONT at the end.
    Pause,
    /// Everything to and from its port is dropped.
    Cut,
}

/// A fault that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What.
    pub deed: Deed,
    /// To whom: one of these, drawn anew for each fault.
    pub parts: Vec<Part>,
    /// How often at least.
    pub least: usize,
}

/// A part of the system, and which of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Name as the scripts know it: `gateway-1`, `kafka`.
    pub name: String,
    /// `http`, `grpc`; empty: the only one, or the whole process.
    pub face: String,
}

/// A fault of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub deed: Deed,
    /// To whom.
    pub part: Part,
    /// ms from its beginning to its end.
    pub lasts_ms: u64,
}

impl Part {
    /// A process.
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), face: String::new() }
    }

    /// One of its ports.
    pub fn face(name: &str, face: &str) -> Self {
        Self { name: name.to_owned(), face: face.to_owned() }
    }
}

impl Kind {
    /// One part, at least so often.
    pub fn new(deed: Deed, part: Part, least: usize) -> Self {
        Self { deed, parts: vec![part], least }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.face.as_str() {
            "" => f.write_str(&self.name),
            face => write!(f, "{} {face}", self.name),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deed = match self.deed {
            Deed::Kill => "kill",
            Deed::Pause => "pause",
            Deed::Cut => "cut",
        };
        write!(f, "{deed} {}", self.part)
    }
}

/// Draws `count` faults: each kind as often as it must be, the rest by chance, no part twice
/// in a row where that can be had. With a `count` below the sum of the least numbers, kinds
/// are drawn without repeats as long as there are any.
pub fn draw(seed: u64, kinds: &[Kind], count: usize) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut drawn: Vec<&Kind> = Vec::new();
    let rounds = kinds.iter().map(|kind| kind.least).max().unwrap_or(0);
    for round in 0..rounds {
        let mut layer: Vec<&Kind> = kinds.iter().filter(|kind| kind.least > round).collect();
        layer.shuffle(&mut random);
        drawn.extend(layer);
    }
    drawn.truncate(count);
    while drawn.len() < count {
        let Some(kind) = kinds.choose(&mut random) else { break };
        drawn.push(kind);
    }
    drawn.shuffle(&mut random);
    let mut faults: Vec<Fault> = Vec::with_capacity(drawn.len());
    for kind in drawn {
        let Some(part) = kind.parts.choose(&mut random) else { continue };
        let lasts_ms = random.random_range(kind.deed.lasts_ms());
        faults.push(Fault { deed: kind.deed, part: part.clone(), lasts_ms });
    }
    part_neighbours(&mut faults);
    faults
}

impl Deed {
    /// A process that is killed is away for less than it takes to be forgotten, or for more
    /// (leases of 10 s are not waited for: the fault ends before); a pause and a cut are long
    /// enough that deadlines of 5 s pass now and then.
    fn lasts_ms(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Self::Kill => 500..=6_000,
            Self::Pause => 2_000..=7_000,
            Self::Cut => 2_000..=7_000,
        }
    }
}

/// Swaps faults until no part meets itself, as far as one pass gets.
fn part_neighbours(faults: &mut [Fault]) {
    for index in 1..faults.len() {
        if faults[index].part.name != faults[index - 1].part.name {
            continue;
        }
        let fits = |other: usize| faults[other].part.name != faults[index - 1].part.name;
        if let Some(other) = (index + 1..faults.len()).find(|other| fits(*other)) {
            faults.swap(index, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        let killed = ["gateway-1", "gateway-2", "logic-1", "logic-2", "redis"];
        let mut kinds: Vec<Kind> =
            killed.iter().map(|name| Kind::new(Deed::Kill, Part::of(name), 2)).collect();
        let brokers = vec![Part::of("kafka-1"), Part::of("kafka-2"), Part::of("kafka-3")];
        kinds.push(Kind { deed: Deed::Kill, parts: brokers, least: 2 });
        kinds.push(Kind::new(Deed::Pause, Part::of("logic-1"), 1));
        kinds
    }

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_seed_another_one() {
        assert_eq!(draw(7, &kinds(), 20), draw(7, &kinds(), 20));
        assert_ne!(draw(7, &kinds(), 20), draw(8, &kinds(), 20));
    }

    #[test]
    fn each_kind_comes_as_often_as_it_must() {
        for seed in 0..50 {
            let faults = draw(seed, &kinds(), 13);
            assert_eq!(faults.len(), 13);
            for kind in kinds() {
                let found = faults
                    .iter()
                    .filter(|fault| fault.deed == kind.deed && kind.parts.contains(&fault.part))
                    .count();
                assert!(found >= kind.least, "seed {seed}: {kind:?} {found} times");
            }
        }
    }

    #[test]
    fn fewer_faults_than_must_be_are_all_different() {
        let faults = draw(3, &kinds(), 6);
        let mut parts: Vec<String> =
            faults.iter().map(|fault| format!("{:?} {}", fault.deed, fault.part)).collect();
        parts.sort();
        parts.dedup();
        assert_eq!(parts.len(), 6);
    }

    #[test]
    fn the_last_fault_may_meet_itself_but_others_hardly() {
        let mut meetings = 0;
        for seed in 0..100 {
            let faults = draw(seed, &kinds(), 20);
            meetings += faults.windows(2).filter(|pair| pair[0].part.name == pair[1].part.name).count();
        }
        assert!(meetings < 60, "{meetings} in 1,900 pairs");
    }
}
