//! A report as text.

use std::error::Error;
use std::fmt;

use super::{ChainReport, ExportReport, Report, Terms, Verdict};
use crate::anchors::{Anchor, MAX_ANCHORED, Recorder, Standing};
use crate::line::NO_HASH;
use crate::verify::{Summary, VerifyError};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exports.iter().try_for_each(|export| self.write_export(f, export))?;
        self.write_missing(f)?;
        self.write_absent(f)?;
        for of in &self.unknown {
            writeln!(f, "no head of {of} is recorded here: nothing is known of its chain")?;
        }
        if self.left_out > 0 {
            writeln!(f, "heads of more than {MAX_ANCHORED} chains: {} were left out", self.left_out)?;
        }
        self.write_verdict(f)
    }
}

impl Report {
    fn write_export(&self, f: &mut fmt::Formatter<'_>, export: &ExportReport) -> fmt::Result {
        let name = &export.name;
        match &export.result {
            Ok(chains) => {
                writeln!(f, "{name}: {}", counted(chains.len() as u64, "chain"))?;
                chains.iter().try_for_each(|chain| chain.write(f, &self.terms))
            }
            Err(VerifyError::Open(source)) => writeln!(f, "{name}: FAILED to open it: {}", caused(source)),
            // Of the first line, nothing was read.
            Err(VerifyError::Read { line: 1, source }) => {
                writeln!(f, "{name}: FAILED to read it: {}", caused(source))
            }
            Err(VerifyError::Read { line, source }) => {
                writeln!(f, "{name}: FAILED to read it at line {line}: {}", caused(source))
            }
            Err(error) => writeln!(f, "{name}: FAILED: {error}"),
        }
    }

    fn write_missing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for anchor in &self.missing {
            let Anchor { head, of, .. } = anchor;
            let recorded = Recorded(anchor);
            writeln!(
                f,
                "chain {} of {of}: FAILED: it is in no file. It had record {} {recorded}",
                head.chain, head.seq
            )?;
        }
        if self.missing.is_empty() {
            return Ok(());
        }
        let why = if !self.terms.of.is_empty() {
            "the files are of it, as --of states"
        } else if self.chains().any(|chain| chain.is_unanchored) {
            "a chain that nothing vouches for may be in its place, and --of NODE can state whose the files are"
        } else {
            "another chain of the same node or operator is in a file, and --of CHAIN can state that it is meant alone"
        };
        writeln!(
            f,
            "  its records may have been removed as a whole: {why}. Add its export, or find out why it is lost"
        )
    }

    fn write_absent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (absent, number) = &self.absent;
        if *number == 0 {
            return Ok(());
        }
        let chains = counted(*number as u64, "other chain");
        writeln!(f, "heads of {chains} are recorded here: verify their exports together with these")?;
        for anchor in absent {
            let Anchor { head, of, .. } = anchor;
            writeln!(f, "  chain {} of {of}: record {} {}", head.chain, head.seq, Recorded(anchor))?;
        }
        if *number > absent.len() {
            writeln!(f, "  and {} more", number - absent.len())?;
        }
        Ok(())
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unanchored = self.chains().filter(|chain| chain.is_unanchored).count() as u64;
        let missing: u64 = self.chains().map(|chain| chain.chain.missing()).fold(0, u64::saturating_add);
        let begin = || {
            let begun = self.chains().filter(|chain| chain.chain.missing() > 0).count() as u64;
            let verb = if missing == 1 { "is" } else { "are" };
            format!(
                "missing {verb} {} before the first of {}",
                counted(missing, "record"),
                counted(begun, "chain")
            )
        };
        match self.verdict() {
            Verdict::Failed if missing > 0 && !self.terms.allow_retention => {
                writeln!(f, "FAILED: {}", begin())
            }
            Verdict::Failed => writeln!(f, "FAILED"),
            Verdict::Unanchored if unanchored == 0 => {
                writeln!(f, "UNANCHORED: every record fits, and heads are missing here that could prove more")
            }
            Verdict::Unanchored => {
                let chains = counted(unanchored, "chain");
                writeln!(
                    f,
                    "UNANCHORED: every record fits, and nothing proves that {chains} can be trusted to be whole"
                )
            }
            Verdict::Fits => {
                f.write_str("OK: every record fits")?;
                if missing > 0 {
                    write!(f, "; {}, as --allow-retention allows", begin())?;
                }
                if unanchored > 0 {
                    let chains = counted(unanchored, "chain");
                    write!(
                        f,
                        "; nothing proves that {chains} can be trusted to be whole, as --allow-unanchored allows"
                    )?;
                }
                if !self.is_compared {
                    f.write_str(
                        "; alone, this shows that nothing in it was changed, and not that it is whole",
                    )?;
                }
                f.write_str("\n")
            }
        }
    }
}

impl ChainReport {
    fn write(&self, f: &mut fmt::Formatter<'_>, terms: &Terms) -> fmt::Result {
        let Summary { writer, first, before, head, times, lost, omitted, set_back, unknown } = &self.chain;
        let writer = writer.as_ref().map_or_else(String::new, |writer| format!(" of {writer}"));
        writeln!(f, "  chain {}{writer}", head.chain)?;
        let records = counted(self.chain.records(), "record");
        writeln!(f, "    {records}, {first} to {}; {} to {}", head.seq, times.0, times.1)?;
        writeln!(f, "    head {}", head.hash)?;
        let missing = self.chain.missing();
        if missing > 0 && !terms.allow_retention {
            let missing = counted(missing, "record");
            writeln!(
                f,
                "    FAILED: {missing} before its first here are missing. If retention has removed them, allow that with \
                 --allow-retention; nothing can tell it from a removal by others"
            )?;
        }
        if **before != *NO_HASH {
            let missing = counted(missing, "record");
            writeln!(
                f,
                "    {missing} before are not in this export; the last of them has the hash {before}"
            )?;
        }
        if *lost > 0 {
            writeln!(f, "    its writer lost {}, and recorded that", counted(*lost, "record"))?;
        }
        if *omitted > 0 {
            let omitted = counted(*omitted, "minor record");
            writeln!(f, "    its writer left out {omitted}, and recorded whose")?;
        }
        if *set_back > 0 {
            writeln!(f, "    the clock of its writer was set back {}", counted(*set_back, "time"))?;
        }
        if *unknown > 0 {
            writeln!(
                f,
                "    {} that this release cannot read, such as of a later one",
                counted(*unknown, "record")
            )?;
        }
        self.write_end(f)?;
        if self.is_unanchored {
            let verdict = if terms.allow_unanchored { "unanchored, which is allowed" } else { "UNANCHORED" };
            writeln!(
                f,
                "    {verdict}: nothing proves that it is whole, or the chain that it claims to be: no head of its records is in \
                 History, or in a chain here that is proven"
            )?;
        }
        Ok(())
    }

    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((anchor, standing)) = &self.anchor else {
            return writeln!(
                f,
                "    end: not recorded by another chain or in heads here, so a cut end would not be found"
            );
        };
        let head = &anchor.head;
        let by = format!("record {} {}", head.seq, Recorded(anchor));
        match standing {
            Standing::Kept if head.seq < self.chain.first => {
                writeln!(f, "    end: it continues {by}, and nothing proves what follows")
            }
            Standing::Kept => {
                writeln!(f, "    end: it still has {by}")?;
                let (of, writer) = (&anchor.of, self.chain.writer.as_deref());
                let claims = format!("node-agent on {of}");
                if *of != "operator" && writer.is_some_and(|writer| writer != claims) {
                    writeln!(f, "    it is recorded as the chain of {of}, and claims to be of another")?;
                }
                Ok(())
            }
            Standing::Cut => {
                writeln!(
                    f,
                    "    FAILED: its end was cut off: it ends before {by}, with the hash {}",
                    head.hash
                )
            }
            Standing::Replaced => writeln!(
                f,
                "    FAILED: it was replaced: it has another {by}, with the hash {}. If the writer's disk was restored from a \
                 copy, the chain was continued twice",
                head.hash
            ),
            Standing::Older => writeln!(f, "    end: {by} is not in this export"),
        }
    }
}

/// Where and when a head was recorded, for people.
struct Recorded<'a>(&'a Anchor);

impl fmt::Display for Recorded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Anchor { recorded_by, time, .. } = self.0;
        match recorded_by {
            Recorder::Chain(chain, record) => {
                write!(f, "as chain {chain} recorded it (record {record}, {time})")
            }
            Recorder::History => write!(f, "as History has it ({time})"),
        }
    }
}

/// An error with its causes.
fn caused(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
