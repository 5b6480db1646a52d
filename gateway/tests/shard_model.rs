//! Setup: one shard on the in-memory driver, with short, full and late sockets; a model of
//! the control side that owns the lines, answers opens, joins and pages when it likes and
//! talks to connections that are long gone; clients that check every byte.
//! Claim: each connection gets exactly its rooms' frames, in order, whole, once, without a
//! hole unless it was cut, whatever is joined, left, closed, stalled or demoted meanwhile;
//! and every membership that began is reported to have ended.
//! Why it matters: this is invariant 3 of the design, at the place where it is easiest to break.
//!
//! `SEED=n cargo test -p corecast-gateway --test shard_model` replays one sequence,
//! `SEEDS=n` runs the first n.
mod shard_model {
    pub(crate) mod client;
    pub(crate) mod control;
    pub(crate) mod network;
    pub(crate) mod world;
}

use shard_model::world::World;

const STEPS: u64 = 600;
const SEEDS: u64 = 200;

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("replay: SEED={seed} cargo test -p corecast-gateway --test shard_model");
        }
    }
}

#[test]
fn each_connection_gets_its_rooms_frames_once_in_order_without_holes() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let seeds = std::env::var("SEEDS").map_or(SEEDS, |count| count.parse().expect("a number"));
            1..seeds + 1
        }
    };
    let mut demoted = 0;
    let mut cuts = 0;
    let mut short = 0;
    let single = seeds.end - seeds.start == 1;
    for seed in seeds {
        let _print = PrintSeed(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        let counters = world.numbers();
        demoted += counters.demoted;
        cuts += counters.cuts;
        short += counters.writes_short;
        world.close_all();
    }
    if !single {
        // The sequences reach what they are for.
        assert!(demoted > 100 && cuts > 50 && short > 1_000, "{demoted} {cuts} {short}");
    }
}
