//! Numbers in few characters, for people: `1.2M`, `85µs`, `3m`.

use std::time::Duration;

/// What stands where a server has nothing to say.
pub(super) const NOTHING: &str = "-";

/// A number with three digits and a unit of thousands: `0`, `7`, `999`, `1.2k`, `34k`, `5.6M`.
pub(super) fn count(value: f64) -> String {
    scaled(value, 1000.0, ["", "k", "M", "G", "T", "P"])
}

/// Bytes in units of 1024: `512`, `1.5K`, `64M`, `2.0G`.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, ["", "K", "M", "G", "T", "P"])
}

fn scaled(value: f64, step: f64, units: [&str; 6]) -> String {
    let (mut value, mut unit) = (value, 0);
    // What would be shown as 1000 belongs to the next unit.
    while value.abs() >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / step, unit + 1);
    }
    let digits = usize::from(value.abs() < 9.95 && (unit > 0 || (value.fract() != 0.0 && value.abs() >= 0.05)));
    format!("{value:.digits$}{}", units[unit])
}

/// Microseconds: `7µs`, `850µs`, `1.2ms`, `34ms`, `5.6s`.
pub(super) fn micros(value: f64) -> String {
    let (value, unit) = match value {
        _ if value < 999.5 => (value, "µs"),
        _ if value < 999_500.0 => (value / 1e3, "ms"),
        _ => (value / 1e6, "s"),
    };
    let digits = usize::from((0.05..9.95).contains(&value));
    format!("{value:.digits$}{unit}")
}

/// A time span in its largest unit: `5s`, `3m`, `2h`, `9d`.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        _ if seconds < 9.95 && seconds.fract() != 0.0 => format!("{seconds:.1}s"),
        _ if seconds < 100.0 => format!("{seconds:.0}s"),
        _ if seconds < 100.0 * 60.0 => format!("{:.0}m", seconds / 60.0),
        _ if seconds < 48.0 * 3600.0 => format!("{:.0}h", seconds / 3600.0),
        _ => format!("{:.0}d", seconds / 86400.0),
    }
}

/// Percent with one decimal: `98.7`, `100`.
pub(super) fn percent(value: f64) -> String {
    if value >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

pub(super) fn or_nothing(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NOTHING.to_owned(), show)
}

/// Reads a number of seconds of a flag, more than 0 and at most a day.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds".to_owned())?;
    match (0.001..=86400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("it must be between 0.001 and 86400 seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.04, 0.5, 7.0, 7.5, 12.4, 999.4, 999.6, 1234.0, 34_000.0, 999_600.0, 5.6e6].map(count);
        assert_eq!(shown, ["0", "0", "0.5", "7", "7.5", "12", "999", "1.0k", "1.2k", "34k", "1.0M", "5.6M"]);
        assert_eq!([512.0, 1023.0, 1536.0, 67108864.0].map(bytes), ["512", "1.0K", "1.5K", "64M"]);
        assert_eq!(
            [0.5, 7.4, 85.0, 999.6, 34e3, 2.5e6].map(micros),
            ["0.5µs", "7.4µs", "85µs", "1.0ms", "34ms", "2.5s"]
        );
        assert_eq!([0.3, 5.0, 180.0, 7200.0, 777_600.0].map(span), ["0.3s", "5s", "3m", "2h", "9d"]);
        assert_eq!([0.0, 98.76, 99.96].map(percent), ["0.0", "98.8", "100"]);
    }

    #[test]
    fn a_number_of_seconds_is_positive_and_ends() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "x", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
