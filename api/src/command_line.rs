//! An argv as one line for people.

/// Longest line, bytes; a longer one is cut and ends with an ellipsis.
pub const MAX_COMMAND_DISPLAY: usize = 1024;

/// An argv as one line: words quoted where a shell would need it, at most [`MAX_COMMAND_DISPLAY`] bytes.
pub fn display_command(argv: &[String]) -> String {
    let mut line = String::new();
    for word in argv {
        if line.len() > MAX_COMMAND_DISPLAY {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', "'\\''"));
            line.push('\'');
        }
    }
    if line.len() > MAX_COMMAND_DISPLAY {
        let end = line.floor_char_boundary(MAX_COMMAND_DISPLAY - '…'.len_utf8());
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        display_command(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn command_is_shown_as_one_would_type_it() {
        assert_eq!(shown(&["df", "-h"]), "df -h");
        assert_eq!(shown(&["sh", "-c", "echo it's $A", ""]), r"sh -c 'echo it'\''s $A' ''");
    }

    #[test]
    fn long_command_is_cut_at_a_character() {
        let line = shown(&["echo", &"ä".repeat(2000)]);
        assert!(line.len() <= MAX_COMMAND_DISPLAY && line.ends_with('…'), "{} bytes", line.len());
    }
}
