//! The outcome as Markdown: limits, faults, rooms, what clients went through.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::campaign::{Back, Outcome};
use super::judge::Check;

/// Writes it. `head` says where and with what it was made, `chart` names the picture.
pub fn render(outcome: &Outcome, checks: &[Check], head: &str, replay: &str, chart: &str) -> String {
    let mut out = head.to_owned();
    let verdict =
        if checks.iter().all(|check| check.kept) { "every limit was kept" } else { "A LIMIT WAS MISSED" };
    let Outcome { plan, book, audit, .. } = outcome;
    let size = &plan.size;
    line(&mut out, &format!("\n**Seed {}: {verdict}.** Again: `{replay}`\n", plan.seed));
    line(&mut out, &format!("System: {}.", outcome.system));
    line(
        &mut out,
        &format!(
            "{} clients, {} rooms of about {} and one of everybody, {} messages a second, {} faults, {:.0} s in all.{}\n",
            size.clients,
            size.rooms,
            size.clients * size.rooms_per_client / size.rooms.max(1),
            size.rate,
            outcome.faults.len(),
            outcome.took.as_secs_f64(),
            if outcome.cuts_links { "" } else { " No link was cut: iptables cannot be used here." },
        ),
    );
    line(&mut out, "| limit | asked | found | |\n|---|---|---|---|");
    for Check { name, limit, found, kept } in checks {
        line(
            &mut out,
            &format!("| {name} | {limit} | {found} | {} |", if *kept { "kept" } else { "**MISSED**" }),
        );
    }
    if book.late_ms > LATE_MS {
        let late = book.late_ms as f64 / 1000.0;
        line(
            &mut out,
            &format!(
                "\nThe clients themselves were starved, up to {late:.1} s behind their schedule: other programs had the cores. Times above are not the system's; the counts are."
            ),
        );
    }
    line(&mut out, &format!("\nChecker: {}.", outcome.verdict));
    line(
        &mut out,
        &format!(
            "Read back: {} messages stored, {} of them never acknowledged, {} acknowledged and not there, {} twice.\n",
            audit.stored, audit.unacknowledged, audit.missing, audit.repeated
        ),
    );
    line(&mut out, &format!("![offered, acknowledged, delivered]({chart})\n"));
    faults(&mut out, outcome);
    rooms(&mut out, outcome);
    line(&mut out, "## Clients\n");
    line(
        &mut out,
        &format!(
            "{} connections; {} requests repeated because no answer came; {} messages not offered because their client had too many waiting; {} cuts, all of them paged unless the table of limits says otherwise; {} times lagging.\n",
            book.connections, book.unanswered, book.skipped, book.cuts, book.lagging
        ),
    );
    counts(&mut out, "why a connection ended, or did not come about", &book.ends);
    counts(&mut out, "request refused for now, by code", &book.repeated);
    counts(&mut out, "message refused for good, by code", &book.refused);
    details(&mut out, outcome);
    out
}

fn faults(out: &mut String, outcome: &Outcome) {
    line(out, "## Faults\n");
    line(
        out,
        "Recovery counts from the moment the end was ordered (for a kill: the restart) until a message to each room was acknowledged and delivered to all its connected members, and every client was connected; the three columns behind it are these three. *complete* are the clients that kept their connection over the silence and held all that was acknowledged at its end; *away* those that did not keep one.\n",
    );
    line(
        out,
        "| | at s | fault | lasted s | recovery s | acks | deliveries | clients | complete | away |\n|---|---|---|---|---|---|---|---|---|---|",
    );
    for (index, fault) in outcome.faults.iter().enumerate() {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let after =
            |ms| fault.after_end(ms).map_or("**never**".to_owned(), |ms| format!("{:.2}", seconds(ms)));
        let Back { acked_ms, delivered_ms, connected_ms } = fault.back;
        let trouble = fault
            .trouble
            .as_ref()
            .map_or(String::new(), |words| format!(" **{}**", words.replace('\n', " ")));
        line(
            out,
            &format!(
                "| {} | {:.0} | {}{trouble} | {:.1} | {} | {} | {} | {} | {}/{} | {} |",
                index + 1,
                seconds(fault.injected_ms),
                fault.fault,
                seconds(fault.ended_ms - fault.injected_ms),
                after(fault.back.whole_ms()),
                after(acked_ms),
                after(delivered_ms),
                after(connected_ms),
                fault.looked_at - fault.incomplete.len(),
                fault.looked_at,
                fault.away,
            ),
        );
    }
    out.push('\n');
}

/// Rooms in one table; a connection is named only where something is wrong.
fn rooms(out: &mut String, outcome: &Outcome) {
    line(out, "## Rooms\n");
    line(
        out,
        "| room | offered | acknowledged | lost | duplicated | reordered | gaps |\n|---|---|---|---|---|---|---|",
    );
    let mut offers = vec![(0u64, 0u64); outcome.rooms.len()];
    for message in &outcome.book.messages {
        if let Some((offered, acked)) = offers.get_mut(message.room) {
            *offered += 1;
            *acked += u64::from(message.acked_ms.is_some());
        }
    }
    for (room, (offered, acked)) in outcome.rooms.iter().zip(offers) {
        let wrong = outcome.verdict.lines.iter().filter(|((_, of), _)| of == room).map(|(_, counts)| counts);
        let sums = wrong.fold([0; 4], |[lost, duplicated, reordered, gaps], counts| {
            [
                lost + counts.lost,
                duplicated + counts.duplicated,
                reordered + counts.reordered,
                gaps + counts.gaps,
            ]
        });
        let [lost, duplicated, reordered, gaps] = sums;
        line(
            out,
            &format!("| {room} | {offered} | {acked} | {lost} | {duplicated} | {reordered} | {gaps} |"),
        );
    }
    out.push('\n');
    if !outcome.verdict.lines.is_empty() {
        line(out, "| client | room | lost | duplicated | reordered | gaps |\n|---|---|---|---|---|---|");
        for ((client, room), counts) in outcome.verdict.lines.iter().take(LINES_MAX) {
            let (lost, duplicated) = (counts.lost, counts.duplicated);
            line(
                out,
                &format!(
                    "| {client} | {room} | {lost} | {duplicated} | {} | {} |",
                    counts.reordered, counts.gaps
                ),
            );
        }
        out.push('\n');
    }
}

fn counts(out: &mut String, heading: &str, counts: &BTreeMap<String, u64>) {
    if counts.is_empty() {
        return;
    }
    line(out, &format!("| {heading} | times |\n|---|---|"));
    for (what, times) in counts {
        line(out, &format!("| {what} | {times} |"));
    }
    out.push('\n');
}

fn details(out: &mut String, outcome: &Outcome) {
    let incomplete = outcome.faults.iter().enumerate().flat_map(|(index, fault)| {
        fault.incomplete.iter().map(move |who| format!("after fault {}: {who} incomplete", index + 1))
    });
    let sentences = outcome.verdict.details.iter().chain(&outcome.audit.details).cloned().chain(incomplete);
    let sentences: Vec<String> = sentences.take(LINES_MAX).collect();
    if !sentences.is_empty() {
        line(out, "## What was wrong\n");
        sentences.iter().for_each(|sentence| line(out, &format!("- {sentence}")));
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String takes every byte");
}

/// Lateness from which times mean nothing.
const LATE_MS: u64 = 1_000;
/// Lines of a list that nobody reads further.
const LINES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::super::judge::tests::outcome;
    use super::super::judge::{Limits, check};
    use super::*;

    #[test]
    fn a_report_says_seed_replay_and_what_was_missed() {
        let mut outcome = outcome();
        outcome.verdict.lost = 3;
        outcome.book.late_ms = 2_500;
        outcome.verdict.details.push("client-1 in room-a: 5 was acknowledged and never came".into());
        let checks = check(&outcome, &Limits { acked_least: 1, ..Limits::default() });
        let report = render(&outcome, &checks, "# head\n", "corecast-bench chaos --seed 7", "chart.svg");
        for words in [
            "Seed 7: A LIMIT WAS MISSED",
            "`corecast-bench chaos --seed 7`",
            "| lost | 0 | 3 | **MISSED** |",
            "| 1 | 1 | kill redis | 1.0 | 0.50 | 0.10 | 0.50 | 0.00 | 2/2 | 0 |",
            "| room-a | 1 | 1 | 0 | 0 | 0 | 0 |",
            "- client-1 in room-a: 5 was acknowledged",
            "](chart.svg)",
            "starved, up to 2.5 s behind",
        ] {
            assert!(report.contains(words), "{words}\n{report}");
        }
    }
}
