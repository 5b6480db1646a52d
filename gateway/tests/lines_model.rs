//! Setup: the lines of a gateway over a modelled logic (rooms with numbers, epochs, rows),
//! two paths that lose, delay, repeat, reorder and re-cut frames, a log path that leaves out
//! what the gateway did not say it wants, and modelled cores with
//! small mailboxes that fill up, connections that open, join, leave, are demoted, catch up
//! and go away. Claim: every connection sees each of its rooms in order, once, without
//! holes, from the number it joined at; every core sees each line without holes; an ack
//! means the line knows the head; and when the disturbances end everybody is complete.
//! Why: this is the guarantee of the whole system, and everything else is an optimisation.
//!
//! A failure prints its seed: `SEED=n cargo test -p corecast-gateway --test lines_model`.
//! `SEEDS=n` runs more of them.

mod lines_model {
    pub(crate) mod cores;
    pub(crate) mod job;
    pub(crate) mod logic;
    pub(crate) mod world;
}

use lines_model::world::World;

#[test]
fn every_connection_sees_its_rooms_in_order_once_and_without_holes() {
    if let Ok(seed) = std::env::var("SEED") {
        run(seed.parse().expect("SEED is a number"));
        return;
    }
    let seeds = std::env::var("SEEDS").map_or(400, |count| count.parse().expect("SEEDS is a number"));
    let left_out: u64 = (0..seeds).map(run).sum();
    assert!(left_out > seeds, "job left out only {left_out} frames");
}

/// Answers how many frames job left out.
fn run(seed: u64) -> u64 {
    let result = std::panic::catch_unwind(|| {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.settle();
        world.left_out()
    });
    match result {
        Ok(left_out) => left_out,
        Err(panic) => {
            eprintln!("replay: SEED={seed} cargo test -p corecast-gateway --test lines_model");
            std::panic::resume_unwind(panic);
        }
    }
}
