//! Option values other than plain numbers and names.

use std::str::FromStr;
use std::time::Duration;

use crate::workload::Popularity;

/// The largest value that loadtest makes. No memcached takes more than this gigabyte.
pub const VALUE_SIZE_MAX: usize = 1 << 30;

/// Weights of gets and sets, not both 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    pub get: u32,
    pub set: u32,
}

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Ratio, &'static str> {
        let parts = text.split_once(':').and_then(|(get, set)| Some((get.parse().ok()?, set.parse().ok()?)));
        match parts {
            Some((0, 0)) => Err("one of the two must be more than 0"),
            Some((get, set)) => Ok(Ratio { get, set }),
            None => Err("expected gets to sets, such as 9:1"),
        }
    }
}

/// Smallest and largest size.
#[derive(Clone, Debug, PartialEq)]
pub struct SizeRange {
    pub min: usize,
    pub max: usize,
}

impl FromStr for SizeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeRange, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        match (min.parse(), max.parse()) {
            (Ok(min), Ok(max)) if min <= max && max <= VALUE_SIZE_MAX => Ok(SizeRange { min, max }),
            _ => Err(format!("expected bytes or a range, such as 32 or 10-200, up to {VALUE_SIZE_MAX}")),
        }
    }
}

impl FromStr for Popularity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Popularity, &'static str> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Popularity::Uniform),
            None if text == "sequential" => Ok(Popularity::Sequential),
            None if text == "zipf" => Ok(Popularity::Zipf(0.99)),
            Some(("zipf", exponent)) => match exponent.parse() {
                Ok(exponent) if (0.0..=20.0).contains(&exponent) => Ok(Popularity::Zipf(exponent)),
                _ => Err("the exponent is a number from 0 to 20"),
            },
            _ => Err("expected uniform, zipf, zipf:EXPONENT or sequential"),
        }
    }
}

/// TTLs in seconds and their weights; one entry or several.
#[derive(Clone, Debug, PartialEq)]
pub struct Ttls(pub Vec<(u32, f64)>);

impl FromStr for Ttls {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Ttls, &'static str> {
        let entry = |entry: &str| {
            let (seconds, weight) = entry.split_once(':').unwrap_or((entry, "1"));
            let seconds = seconds.parse().ok().filter(|seconds| *seconds <= i32::MAX as u32)?;
            let weight = weight.parse().ok().filter(|weight: &f64| *weight > 0.0 && weight.is_finite())?;
            Some((seconds, weight))
        };
        let entries: Option<_> = text.split(',').map(entry).collect();
        entries.map(Ttls).ok_or("expected seconds, or a choice such as 60:0.7,3600:0.3")
    }
}

/// Requests per second, above 0.
#[derive(Clone, Debug)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Rate, &'static str> {
        text.parse().ok().filter(|rate| (1e-3..=1e9).contains(rate)).map(Rate).ok_or("expected requests per second")
    }
}

/// A duration above 0.
#[derive(Clone, Debug)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Seconds, &'static str> {
        let seconds = text.parse().ok().filter(|seconds| (1e-3..=1e9).contains(seconds));
        seconds.map(|seconds| Seconds(Duration::from_secs_f64(seconds))).ok_or("expected a number of seconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }

    #[test]
    fn values_of_options() {
        assert_eq!(parse("9:1"), Some(Ratio { get: 9, set: 1 }));
        assert_eq!(parse("0:1"), Some(Ratio { get: 0, set: 1 }));
        assert!(["0:0", "9", "a:b", "-1:1"].into_iter().all(|bad| parse::<Ratio>(bad).is_none()));

        assert_eq!(parse("32"), Some(SizeRange { min: 32, max: 32 }));
        assert_eq!(parse("10-200"), Some(SizeRange { min: 10, max: 200 }));
        assert!(["", "9-8", "x", "1-", "9999999999"].into_iter().all(|bad| parse::<SizeRange>(bad).is_none()));

        assert_eq!(parse("zipf"), Some(Popularity::Zipf(0.99)));
        assert_eq!(parse("zipf:1.2"), Some(Popularity::Zipf(1.2)));
        assert!(
            ["", "zipf:", "zipf:-1", "zipf:nan", "normal"].into_iter().all(|bad| parse::<Popularity>(bad).is_none())
        );

        assert_eq!(parse("60"), Some(Ttls(vec![(60, 1.0)])));
        assert_eq!(parse("60:0.5,0:2"), Some(Ttls(vec![(60, 0.5), (0, 2.0)])));
        assert!(["", "60:0", "60,", "-1", "1:nan"].into_iter().all(|bad| parse::<Ttls>(bad).is_none()));
    }
}
