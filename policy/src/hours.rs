//! In which hours a command may start.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use sentinel_protocol::time::UnixMillis;
use serde::Deserialize;

use crate::fit::Fit;
use crate::keyword::present;

/// Hours on days of a week, in a named time zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hours {
    /// The days on which they begin; without this field all.
    #[serde(default, deserialize_with = "present")]
    pub days: Option<Vec<Day>>,
    /// When they begin.
    pub from: ClockTime,
    /// When they end, on the next day if that is earlier.
    pub to: ClockTime,
    /// Their time zone: a name of the IANA database, such as `Europe/Berlin`, or `UTC`.
    pub time_zone: Zone,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn of(weekday: Weekday) -> Self {
        match weekday {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// A time of the day, `HH:MM`, up to `24:00`. Minutes after midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ClockTime(u16);

impl TryFrom<String> for ClockTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |text: &str| {
            (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| text.parse::<u16>().ok())?
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
        let is_time =
            |(hour, minute): &(u16, u16)| (*hour < 24 && *minute < 60) || (*hour, *minute) == (24, 0);
        match parts.filter(is_time) {
            Some((hour, minute)) => Ok(Self(hour * 60 + minute)),
            None => {
                Err(format!("{text:?} is not a time of the day between \"00:00\" and \"24:00\", in quotes"))
            }
        }
    }
}

impl std::fmt::Display for ClockTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Zone(String, TimeZone);

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match TimeZone::get(&name) {
            Ok(zone) => Ok(Self(name, zone)),
            Err(_) => {
                Err(format!("{name:?} is not a time zone of the IANA database, such as Europe/Berlin or UTC"))
            }
        }
    }
}

impl Hours {
    /// Whether this moment is within them.
    pub(crate) fn fit(&self, now: UnixMillis) -> Fit {
        let Ok(instant) = Timestamp::from_millisecond(now.0) else {
            return Fit::Unknown("the node's clock is far off".to_owned());
        };
        let local = instant.to_zoned(self.time_zone.1.clone());
        let minute = minute_of(local.time());
        let today = Day::of(local.weekday());
        let yesterday = Day::of(local.weekday().previous());
        let begins = |day| self.days.as_ref().is_none_or(|days| days.contains(&day));
        let (from, to) = (self.from.0, self.to.0);
        let within = if from < to {
            begins(today) && (from..to).contains(&minute)
        } else {
            (begins(today) && minute >= from) || (begins(yesterday) && minute < to)
        };
        Fit::or_differs(within, || {
            let days = self.days.as_ref().map(|days| format!(" on {days:?}")).unwrap_or_default();
            format!(
                "it is {today:?} {} in {}; the rule is for {} to {}{days}",
                local.strftime("%H:%M"),
                self.time_zone.0,
                self.from,
                self.to
            )
        })
    }
}

fn minute_of(time: Time) -> u16 {
    u16::try_from(i32::from(time.hour()) * 60 + i32::from(time.minute())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(days: Option<Vec<Day>>, from: &str, to: &str) -> Hours {
        let time = |text: &str| ClockTime::try_from(text.to_owned()).unwrap();
        Hours {
            days,
            from: time(from),
            to: time(to),
            time_zone: Zone::try_from("Europe/Berlin".to_owned()).unwrap(),
        }
    }

    fn fits(hours: &Hours, instant: &str) -> bool {
        let instant: Timestamp = instant.parse().unwrap();
        hours.fit(UnixMillis(instant.as_millisecond())) == Fit::Fits
    }

    #[test]
    fn hours_are_those_of_the_named_zone() {
        let office = hours(Some(vec![Day::Mon, Day::Tue]), "08:00", "18:00");
        assert!(fits(&office, "2026-11-30T07:00:00Z"), "Monday 8:00 in Berlin");
        assert!(!fits(&office, "2026-11-30T06:59:59Z"));
        assert!(!fits(&office, "2026-11-30T17:00:00Z"), "the end is not within");
        assert!(!fits(&office, "2026-12-02T10:00:00Z"), "a Wednesday");
        // In summer the zone is another hour ahead.
        assert!(fits(&office, "2026-07-06T06:00:00Z"));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = hours(Some(vec![Day::Fri]), "22:00", "04:00");
        assert!(fits(&night, "2026-11-27T21:30:00Z"), "Friday 22:30");
        assert!(fits(&night, "2026-11-28T02:59:00Z"), "Saturday 3:59");
        assert!(!fits(&night, "2026-11-28T03:00:00Z") && !fits(&night, "2026-11-28T22:00:00Z"));
        assert!(!fits(&night, "2026-11-27T02:00:00Z"), "Friday 3:00 belongs to Thursday");
    }

    #[test]
    fn the_hour_that_a_change_of_the_clock_skips_or_repeats_is_an_hour_like_others() {
        let early = hours(None, "02:00", "03:00");
        assert!(!fits(&early, "2026-03-29T01:00:00Z"), "2:00 became 3:00");
        assert!(fits(&early, "2026-10-25T00:30:00Z") && fits(&early, "2026-10-25T01:30:00Z"), "twice 2:30");
    }
}
