//! Pictures of a series: medians with their ranges, and latencies by percentile.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::load::Latency;
use crate::report::{Series, Spread, short};
use crate::subject::Kind;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `<stem>.svg` into `folder`: the figure's median and range per subject, and beside it
/// the latencies, where there are some. Answers the file's name; `None` when no run counts.
///
/// # Errors
/// The file cannot be written.
pub fn draw(series: &Series, folder: &Path, stem: &str) -> Result<Option<String>> {
    let bars: Vec<(Kind, Spread)> =
        series.kinds().into_iter().filter_map(|kind| Some((kind, series.figure_of(kind)?))).collect();
    let curves: Vec<(Kind, Latency)> = series
        .kinds()
        .into_iter()
        .map(|kind| (kind, series.latency(kind)))
        .filter(|(_, latency)| latency.count() > 0)
        .collect();
    if bars.is_empty() {
        return Ok(None);
    }
    let name = format!("{stem}.svg");
    let path = folder.join(&name);
    let size = (if curves.is_empty() { WIDTH / 2 } else { WIDTH }, HEIGHT);
    let root = SVGBackend::new(&path, size).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    if curves.is_empty() {
        draw_bars(&root, series, &bars)?;
    } else {
        let (left, right) = root.split_horizontally(WIDTH / 2);
        draw_bars(&left, series, &bars)?;
        draw_curves(&right, series, &curves)?;
    }
    root.present().map_err(failed)?;
    Ok(Some(name))
}

fn draw_bars(area: &Area<'_>, series: &Series, bars: &[(Kind, Spread)]) -> Result<()> {
    let most = bars.iter().map(|(_, spread)| spread.max.max(spread.median)).fold(f64::MIN_POSITIVE, f64::max);
    let least = bars.iter().map(|(_, spread)| spread.min).fold(0.0, f64::min);
    let rows = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: {}", series.title, series.figure.heading()), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(32)
        .build_cartesian_2d(least * 1.05..most * 1.05, 0.0..rows)
        .map_err(failed)?;
    chart.configure_mesh().max_light_lines(0).disable_y_mesh().disable_y_axis().draw().map_err(failed)?;
    for (row, (kind, spread)) in bars.iter().enumerate() {
        // The first subject is on top.
        let base = rows - row as f64 - 1.0;
        let color = color(*kind);
        let (low, high) = (base + 0.12, base + 0.52);
        let bar = Rectangle::new([(0.0, low), (spread.median, high)], color.mix(0.7).filled());
        let middle = (low + high) / 2.0;
        let range = PathElement::new([(spread.min, middle), (spread.max, middle)], BLACK.stroke_width(2));
        let ends =
            [spread.min, spread.max].map(|x| PathElement::new([(x, low), (x, high)], BLACK.stroke_width(1)));
        let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| short(Some(value)));
        let words = format!("{}: {median} ({min} to {max})", kind.name());
        chart.draw_series([bar]).map_err(failed)?;
        chart.draw_series(ends.into_iter().chain([range])).map_err(failed)?;
        chart.draw_series([Text::new(words, (least, base + 0.82), ("sans-serif", 13))]).map_err(failed)?;
    }
    Ok(())
}

/// Percentiles on an axis of nines: 90 %, 99 %, 99.9 % at equal distances.
fn draw_curves(area: &Area<'_>, series: &Series, curves: &[(Kind, Latency)]) -> Result<()> {
    let nines = |share: f64| -(1.0 - share).log10();
    let shares: Vec<f64> = (0..=80).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 20.0)).collect();
    let values =
        curves.iter().flat_map(|(_, latency)| [latency.quantile_ms(0.0), latency.quantile_ms(0.9999)]);
    let (mut least, mut most) = (f64::MAX, f64::MIN_POSITIVE);
    values.for_each(|value| (least, most) = (least.min(value), most.max(value)));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: latency, ms", series.title), ("sans-serif", 16))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..4.0, (least.max(1e-3) * 0.9..most.max(2e-3) * 1.1).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_labels(5)
        .x_label_formatter(&|nines: &f64| match nines.round() as u32 {
            0 => "0 %".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            more => format!("99.{} %", "9".repeat(more as usize - 2)),
        })
        .draw()
        .map_err(failed)?;
    for (kind, latency) in curves {
        let color = color(*kind);
        let points = shares.iter().map(|share| (nines(*share), latency.quantile_ms(*share).max(1e-3)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))
            .map_err(failed)?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()
        .map_err(failed)
}

/// The same in every picture.
fn color(kind: Kind) -> RGBColor {
    match kind {
        Kind::FloorSend => RGBColor(110, 110, 110),
        Kind::FloorUring | Kind::FloorOneSend => RGBColor(60, 140, 60),
        Kind::FloorV1 => RGBColor(40, 150, 150),
        Kind::Baseline => RGBColor(200, 120, 20),
        Kind::SendPerRoom | Kind::Undisturbed => RGBColor(130, 90, 170),
        Kind::Gateway => RGBColor(20, 90, 190),
        Kind::GatewayV1 => RGBColor(190, 40, 90),
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("no chart: {error}")
}

const WIDTH: u32 = 1_120;
const HEIGHT: u32 = 320;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::fleet::Found;
    use crate::measure::{Cost, Run};
    use crate::report::Figure;

    fn run(kind: Kind, shard_ns: u64, latency: Latency) -> Run {
        Run {
            kind,
            operations: 1,
            cost: Cost { shard_ns, wall_ns: 1, ..Cost::default() },
            found: Found { latency, ..Found::default() },
            bytes_per_connection: None,
            frames_per_write: None,
            sends: None,
            facts: Vec::new(),
            rejected: None,
        }
    }

    #[test]
    fn a_picture_names_every_subject_and_shows_latencies_where_there_are_some() {
        let folder = tempfile::tempdir().unwrap();
        let mut latency = Latency::new();
        (1..1_000).for_each(|us| latency.record(us * 1_000, 1));
        let mut series = Series {
            title: "Echo, 1".into(),
            question: String::new(),
            figure: Figure::Cpu,
            reference: Kind::FloorSend,
            further: Vec::new(),
            failures: Vec::new(),
            rounds: vec![vec![run(Kind::FloorSend, 5, latency), run(Kind::Gateway, 7, Latency::new())]],
        };
        assert_eq!(draw(&series, folder.path(), "a").unwrap().as_deref(), Some("a.svg"));
        let picture = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
        assert!(picture.contains("corecast: ") && picture.contains("99.9 %"), "{picture}");
        series.rounds.clear();
        assert_eq!(draw(&series, folder.path(), "b").unwrap(), None);
    }
}
