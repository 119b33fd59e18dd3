//! What checks find, line by line.

use serde::Serialize;
use serde_json::{Value, json};

use crate::args::CheckFormat;
use crate::exit::Failure;
use crate::output::color::Style;
use crate::output::format::print;
use crate::output::padded;
use crate::output::text::Text;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and may not be what you want; or could not be checked.
    Warn,
    /// Does not work.
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was checked: a name for programs.
    pub(crate) check: &'static str,
    /// How it ended.
    pub(crate) result: Verdict,
    /// What was found.
    pub(crate) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

/// All lines; each is printed as it is found.
#[derive(Debug)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    shown: bool,
}

impl Findings {
    /// None yet. Lines are printed in this format: text as they are found, JSON at the end.
    pub(crate) fn new(format: CheckFormat) -> Self {
        Self { all: Vec::new(), shown: format == CheckFormat::Text }
    }

    /// None yet, and nothing is printed.
    pub(crate) fn silent() -> Self {
        Self { all: Vec::new(), shown: false }
    }

    /// Something is as it should be.
    pub(crate) fn ok(&mut self, check: &'static str, message: impl Into<String>) -> Result<(), Failure> {
        self.add(Finding { check, result: Verdict::Ok, message: message.into(), advice: None })
    }

    /// Something may not be as wanted.
    pub(crate) fn warn(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<(), Failure> {
        let advice = Some(advice.into());
        self.add(Finding { check, result: Verdict::Warn, message: message.into(), advice })
    }

    /// Something does not work.
    pub(crate) fn fail(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<(), Failure> {
        let advice = Some(advice.into());
        self.add(Finding { check, result: Verdict::Fail, message: message.into(), advice })
    }

    fn add(&mut self, finding: Finding) -> Result<(), Failure> {
        if self.shown {
            print(line(&finding))?;
        }
        self.all.push(finding);
        Ok(())
    }

    /// Whether nothing failed.
    pub(crate) fn is_ok(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }

    /// How many ended so.
    pub(crate) fn count(&self, result: Verdict) -> usize {
        self.all.iter().filter(|finding| finding.result == result).count()
    }

    /// The lines as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({"ok": self.is_ok(), "checks": self.all})
    }
}

fn line(finding: &Finding) -> Text {
    let (style, word) = match finding.result {
        Verdict::Ok => (Style::Success, "ok"),
        Verdict::Warn => (Style::Warning, "warn"),
        Verdict::Fail => (Style::Error, "FAIL"),
    };
    let mut text = Text::new().styled(style, padded(word, 6)).plain(padded(finding.check, 14));
    text = text.single_line(&finding.message).plain("\n");
    match &finding.advice {
        Some(advice) => text.plain(format!(
            "{}{}\n",
            " ".repeat(20),
            advice.replace('\n', &format!("\n{}", " ".repeat(20)))
        )),
        None => text,
    }
}
