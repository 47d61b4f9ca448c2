//! Where a value lies on an axis, and what is written there.

/// An axis: values to places between 0 and 1.
#[derive(Debug, Clone)]
pub struct Scale {
    kind: Kind,
    from: f64,
    to: f64,
    pub ticks: Vec<(f64, String)>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Linear,
    Log,
    /// Quantiles by their distance from 1, logarithmically: each nine is as long as the one before.
    Nines,
}

impl Scale {
    /// From 0 to `highest` or a little more, with about `count` ticks at round values.
    pub fn linear(highest: f64, count: usize, show: impl Fn(f64) -> String) -> Self {
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let step = round_step(highest / count.max(1) as f64);
        let steps = (highest / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=steps as usize).map(|index| index as f64 * step).map(|value| (value, show(value))).collect();
        Self { kind: Kind::Linear, from: 0.0, to: steps * step, ticks }
    }

    /// Exactly from 0 to `end`, with ticks at round values of time in seconds.
    pub fn seconds(end: f64, show: impl Fn(f64) -> String) -> Self {
        const STEPS: [f64; 15] = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 10_800.0, 21_600.0, 86_400.0,
        ];
        let end = end.max(1.0);
        // A run of weeks has ticks of several days.
        let days = || (end / 86_400.0 / 8.0).ceil() * 86_400.0;
        let step = STEPS.into_iter().find(|step| end / step <= 8.0).unwrap_or_else(days);
        let ticks = (0..=(end / step) as usize).map(|index| index as f64 * step).map(|at| (at, show(at))).collect();
        Self { kind: Kind::Linear, from: 0.0, to: end, ticks }
    }

    /// Logarithmic around `lowest` to `highest`, both positive, with ticks at 1, 2 and 5 of each power of ten, or at the
    /// powers alone if they are many.
    pub fn log(lowest: f64, highest: f64, show: impl Fn(f64) -> String) -> Self {
        let candidates = |digits: &'static [f64]| {
            (-3..=12).flat_map(move |power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
        };
        let below = candidates(&[1.0, 2.0, 5.0]).filter(|value| *value <= lowest).fold(1e-3, f64::max);
        let above = candidates(&[1.0, 2.0, 5.0]).find(|value| *value >= highest && *value > below);
        let above = above.unwrap_or(below * 10.0);
        let digits: &[f64] = if above / below > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let inside = |value: &f64| (below * 0.999..=above * 1.001).contains(value);
        let ticks = candidates(digits).filter(inside).map(|value| (value, show(value))).collect();
        Self { kind: Kind::Log, from: below.ln(), to: above.ln(), ticks }
    }

    /// Quantiles from 0 as far as `samples` tell them apart.
    pub fn nines(samples: u64) -> Self {
        let to = (samples.max(10) as f64).log10();
        let mut ticks = vec![(0.0, "0".to_owned()), (0.5, "50%".to_owned())];
        for nines in 1..=to.floor() as i32 {
            let percent = match nines {
                1 => "90%".to_owned(),
                2 => "99%".to_owned(),
                more => format!("99.{}%", "9".repeat(more.unsigned_abs() as usize - 2)),
            };
            ticks.push((1.0 - 10_f64.powi(-nines), percent));
        }
        Self { kind: Kind::Nines, from: 0.0, to, ticks }
    }

    /// Between 0 and 1, also for values beyond the ends.
    pub fn place(&self, value: f64) -> f64 {
        let value = match self.kind {
            Kind::Linear => value,
            Kind::Log => value.max(f64::MIN_POSITIVE).ln(),
            Kind::Nines => -(1.0 - value).max(f64::MIN_POSITIVE).log10(),
        };
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= least * 0.999_999).unwrap_or(10.0);
    digit * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(scale: &Scale) -> Vec<f64> {
        scale.ticks.iter().map(|(value, _)| *value).collect()
    }

    #[test]
    fn ticks_are_round() {
        let plain = |value: f64| value.to_string();
        assert_eq!(ticks(&Scale::linear(3_000.0, 4, plain)), [0.0, 1_000.0, 2_000.0, 3_000.0]);
        assert_eq!(ticks(&Scale::linear(0.0, 4, plain)), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(&Scale::seconds(40.0, plain)), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]);
        assert_eq!(ticks(&Scale::log(600.0, 4_000.0, plain)), [500.0, 1_000.0, 2_000.0, 5_000.0]);
        assert_eq!(ticks(&Scale::log(600.0, 4e6, plain)), [1e3, 1e4, 1e5, 1e6]);
        assert_eq!(ticks(&Scale::seconds(30.0 * 86_400.0, plain)).len(), 8);
    }

    #[test]
    fn nines_are_of_the_same_length() {
        let scale = Scale::nines(1_000_000);
        let labels: Vec<_> = scale.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0", "50%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%"]);
        for (quantile, place) in [(0.0, 0.0), (0.9, 1.0 / 6.0), (0.999, 0.5), (1.0, 1.0)] {
            assert!((scale.place(quantile) - place).abs() < 1e-6, "{quantile}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_value_has_a_place(lowest in 0.1_f64..1e9, factor in 1.0_f64..1e6, share in 0.0_f64..1.0) {
            let highest = lowest * factor;
            for scale in [Scale::log(lowest, highest, |_| String::new()), Scale::linear(highest, 5, |_| String::new())] {
                let place = scale.place(lowest + share * (highest - lowest));
                proptest::prop_assert!((0.0..=1.0).contains(&place));
                proptest::prop_assert!(!scale.ticks.is_empty() && scale.ticks.len() <= 40, "{:?}", scale.ticks);
            }
        }
    }
}
