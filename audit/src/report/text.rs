//! A report as text.

use std::error::Error;
use std::fmt;

use sentinel_protocol::shown::single_line;

use super::overlap::{Difference, Within};
use super::{ChainReport, ExportReport, MAX_NAMED, Report, Terms, Verdict};
use crate::anchors::{Anchor, MAX_ANCHORED, Recorder, Standing};
use crate::line::NO_HASH;
use crate::verify::{Misfit, Summary, VerifyError, Why};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exports.iter().try_for_each(|export| self.write_export(f, export))?;
        self.write_differences(f)?;
        self.write_missing(f)?;
        self.write_absent(f)?;
        for of in &self.unknown {
            let known = self.known();
            put(f, format_args!("no head of {of} is recorded here: nothing is known of its chain; {known}"))?;
        }
        if self.left_out > 0 {
            put(
                f,
                format_args!("heads of more than {MAX_ANCHORED} chains: {} were left out", self.left_out),
            )?;
        }
        self.write_verdict(f)
    }
}

impl Report {
    /// Whose heads are recorded.
    fn known(&self) -> String {
        match &*self.parties {
            [] => "no head of any chain is".to_owned(),
            parties if parties.len() > MAX_NAMED => {
                let named = parties[..MAX_NAMED].join(", ");
                format!("there are heads of {named} and {} more", parties.len() - MAX_NAMED)
            }
            parties => format!("there are heads of {}", parties.join(", ")),
        }
    }

    fn write_export(&self, f: &mut fmt::Formatter<'_>, export: &ExportReport) -> fmt::Result {
        let name = &export.name;
        match &export.result {
            Ok(chains) => {
                put(f, format_args!("{name}: {}", counted(chains.len() as u64, "chain")))?;
                chains.iter().try_for_each(|chain| chain.write(f, &self.terms))
            }
            Err(VerifyError::Open(source)) => {
                put(f, format_args!("{name}: FAILED to open it: {}", caused(source)))
            }
            // Of the first line, nothing was read.
            Err(VerifyError::Read { line: 1, source }) => {
                put(f, format_args!("{name}: FAILED to read it: {}", caused(source)))
            }
            Err(VerifyError::Read { line, source }) => {
                put(f, format_args!("{name}: FAILED to read it at line {line}: {}", caused(source)))
            }
            Err(VerifyError::Misfit(Misfit { why: why @ Why::Empty, .. })) => {
                put(f, format_args!("{name}: FAILED: {why}"))
            }
            Err(error) => put(f, format_args!("{name}: FAILED: {error}")),
        }
    }

    fn write_differences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Difference { chain, seq, files: [one, other] } in &self.differences {
            put(
                f,
                format_args!(
                    "chain {chain}: FAILED: from record {seq} on, {one} and {other} have different records of it, each with hashes \
                     that fit. One of them was written anew, or the writer's disk was restored from a copy and the chain was \
                     continued twice; a head from before, with --heads, shows which one was changed"
                ),
            )?;
        }
        Ok(())
    }

    fn write_missing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for anchor in &self.missing {
            let Anchor { head, of, .. } = anchor;
            let recorded = Recorded(anchor);
            put(
                f,
                format_args!(
                    "chain {} of {of}: FAILED: it is in no file. It had record {} {recorded}",
                    head.chain, head.seq
                ),
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
        put(
            f,
            format_args!(
                "  its records may have been removed as a whole: {why}. Add its export, or find out why it is lost"
            ),
        )
    }

    fn write_absent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (absent, number) = &self.absent;
        if *number == 0 {
            return Ok(());
        }
        let chains = counted(*number as u64, "other chain");
        put(
            f,
            format_args!("heads of {chains} are recorded here: verify their exports together with these"),
        )?;
        for anchor in absent {
            let Anchor { head, of, .. } = anchor;
            put(f, format_args!("  chain {} of {of}: record {} {}", head.chain, head.seq, Recorded(anchor)))?;
        }
        if *number > absent.len() {
            put(f, format_args!("  and {} more", number - absent.len()))?;
        }
        Ok(())
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unanchored = self.chains().filter(|chain| chain.is_unanchored).count() as u64;
        let missing: u64 = self.chains().map(ChainReport::missing).fold(0, u64::saturating_add);
        let begin = || {
            let begun = self.chains().filter(|chain| chain.missing() > 0).count() as u64;
            let verb = if missing == 1 { "is" } else { "are" };
            format!(
                "missing {verb} {} before the first of {}",
                counted(missing, "record"),
                counted(begun, "chain")
            )
        };
        match self.verdict() {
            Verdict::Failed if missing > 0 && !self.terms.allow_retention => {
                put(f, format_args!("FAILED: {}", begin()))
            }
            Verdict::Failed => put(f, format_args!("FAILED")),
            Verdict::Unanchored if unanchored == 0 => put(
                f,
                format_args!(
                    "UNANCHORED: every record fits, and heads are missing here that could prove more"
                ),
            ),
            Verdict::Unanchored => {
                let chains = counted(unanchored, "chain");
                put(
                    f,
                    format_args!(
                        "UNANCHORED: every record fits, and nothing proves that {chains} can be trusted to be whole"
                    ),
                )
            }
            Verdict::Fits => {
                let retention = if missing > 0 {
                    format!("; {}, as --allow-retention allows", begin())
                } else {
                    String::new()
                };
                let unproven = if unanchored > 0 {
                    let chains = counted(unanchored, "chain");
                    format!(
                        "; nothing proves that {chains} can be trusted to be whole, as --allow-unanchored allows"
                    )
                } else {
                    String::new()
                };
                let alone = if self.is_compared {
                    ""
                } else {
                    "; alone, this shows that nothing in it was changed, and not that it is whole"
                };
                put(f, format_args!("OK: every record fits{retention}{unproven}{alone}"))
            }
        }
    }
}

impl ChainReport {
    fn write(&self, f: &mut fmt::Formatter<'_>, terms: &Terms) -> fmt::Result {
        let Summary { writer, first, before, head, times, lost, omitted, set_back, unknown } = &self.chain;
        let writer = writer.as_ref().map_or_else(String::new, |writer| format!(" of {writer}"));
        put(f, format_args!("  chain {}{writer}", head.chain))?;
        let records = counted(self.chain.records(), "record");
        put(f, format_args!("    {records}, {first} to {}; {} to {}", head.seq, times.0, times.1))?;
        put(f, format_args!("    head {}", head.hash))?;
        if self.missing() > 0 && !terms.allow_retention {
            let missing = counted(self.missing(), "record");
            put(
                f,
                format_args!(
                    "    FAILED: {missing} before its first here are missing. If retention has removed them, allow that with \
                 --allow-retention; nothing can tell it from a removal by others"
                ),
            )?;
        }
        if **before != *NO_HASH {
            let missing = counted(self.chain.missing(), "record");
            put(
                f,
                format_args!(
                    "    {missing} before are not in this export; the last of them has the hash {before}"
                ),
            )?;
        }
        if self.begins < *first {
            let begins = self.begins;
            put(f, format_args!("    records {begins} to {} are in other files here", first - 1))?;
        }
        if *lost > 0 {
            put(f, format_args!("    its writer lost {}, and recorded that", counted(*lost, "record")))?;
        }
        if *omitted > 0 {
            let omitted = counted(*omitted, "minor record");
            put(f, format_args!("    its writer left out {omitted}, and recorded whose"))?;
        }
        if *set_back > 0 {
            put(f, format_args!("    the clock of its writer was set back {}", counted(*set_back, "time")))?;
        }
        if *unknown > 0 {
            put(
                f,
                format_args!(
                    "    {} that this release cannot read, such as of a later one",
                    counted(*unknown, "record")
                ),
            )?;
        }
        self.write_end(f)?;
        if self.is_unanchored {
            let verdict = if terms.allow_unanchored { "unanchored, which is allowed" } else { "UNANCHORED" };
            put(
                f,
                format_args!(
                    "    {verdict}: nothing proves that it is whole, or the chain that it claims to be: no head of its records is in \
                 History, or in a chain here that is proven"
                ),
            )?;
        }
        Ok(())
    }

    fn write_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(within) = &self.within {
            self.write_within(f, within)?;
        }
        // Of a part, only a contradiction is not also in the report of the export that has more.
        if self.within.is_some() && !matches!(self.anchor, Some((_, Standing::Replaced))) {
            return Ok(());
        }
        let Some((anchor, standing)) = &self.anchor else {
            return put(
                f,
                format_args!(
                    "    end: not recorded by another chain or in heads here, so a cut end would not be found"
                ),
            );
        };
        let head = &anchor.head;
        let by = format!("record {} {}", head.seq, Recorded(anchor));
        match standing {
            Standing::Kept if head.seq < self.chain.first => {
                put(f, format_args!("    end: it continues {by}, and nothing proves what follows"))
            }
            Standing::Kept => {
                put(f, format_args!("    end: it still has {by}"))?;
                let (of, writer) = (&anchor.of, self.chain.writer.as_deref());
                let claims = format!("node-agent on {of}");
                if *of != "operator" && writer.is_some_and(|writer| writer != claims) {
                    put(
                        f,
                        format_args!("    it is recorded as the chain of {of}, and claims to be of another"),
                    )?;
                }
                Ok(())
            }
            Standing::Cut => put(
                f,
                format_args!(
                    "    FAILED: its end was cut off: it ends before {by}, with the hash {}",
                    head.hash
                ),
            ),
            Standing::Replaced => put(
                f,
                format_args!(
                    "    FAILED: it was replaced: it has another {by}, with the hash {}. If the writer's disk was restored from a \
                 copy, the chain was continued twice",
                    head.hash
                ),
            ),
            Standing::Older => put(f, format_args!("    end: {by} is not in this export")),
        }
    }
}

impl ChainReport {
    fn write_within(&self, f: &mut fmt::Formatter<'_>, within: &Within) -> fmt::Result {
        let Within { file, last, gap } = within;
        match gap {
            Some((from, to)) => {
                let missing = counted(to - from + 1, "record");
                put(
                    f,
                    format_args!(
                        "    {file} has later records of it, up to {last}; {missing} between, {from} to {to}, are in no file, so \
                         nothing here shows that both belong together"
                    ),
                )
            }
            None if self.chain.head.seq == *last => {
                put(f, format_args!("    its records are those of {file}, which has the same end"))
            }
            None => put(
                f,
                format_args!("    its records are those of {file}, which has the chain up to record {last}"),
            ),
        }
    }
}

/// Writes a line, and never more than one: what is in it comes from exports.
fn put(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    f.write_str(&single_line(&text.to_string()))?;
    f.write_str("\n")
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
