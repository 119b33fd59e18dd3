//! As much of JavaScript as is needed to find the references of a module to other files, and to leave out its comments:
//! where strings, templates, regular expressions and comments begin and end.

use std::ops::Range;

/// A reference of a file to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Where the path is in the text, without its quotes.
    pub(crate) at: Range<usize>,
    /// How the file is used.
    pub(crate) usage: Usage,
}

/// How a file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Loaded before the module runs.
    Import,
    /// Loaded when the module asks for it: `import("./x.js")`, an address, a picture of a style sheet.
    OnDemand,
}

/// A part of a script that is not white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) at: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name, a keyword or a number.
    Word,
    /// With its quotes.
    String,
    /// A part of a template, up to the next `${` or its end.
    Template,
    Regex,
    Comment,
    /// One character of anything else.
    Mark,
}

/// The references of a module.
///
/// # Errors
/// A string, template or comment that does not end, or an import of something that is not a path.
pub(crate) fn references(text: &str) -> Result<Vec<Reference>, String> {
    let mut tokens = tokens(text)?;
    tokens.retain(|token| token.kind != TokenKind::Comment);
    let word = |index: Option<usize>| -> &str {
        index.and_then(|index| tokens.get(index)).map_or("", |token| &text[token.at.clone()])
    };
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.kind != TokenKind::String {
            continue;
        }
        let before = |steps: usize| word(index.checked_sub(steps));
        let is_import = matches!(before(1), "from" | "import") && before(2) != ".";
        let is_dynamic = before(1) == "(" && before(2) == "import" && before(3) != ".";
        let is_address = [before(3), before(2), before(1)] == ["new", "URL", "("]
            && (1..=6).map(|steps| word(Some(index + steps))).eq([",", "import", ".", "meta", ".", "url"]);
        let usage = if is_import {
            Usage::Import
        } else if is_dynamic || is_address {
            Usage::OnDemand
        } else {
            continue;
        };
        let at = token.at.start + 1..token.at.end - 1;
        let path = &text[at.clone()];
        if !path.starts_with("./") && !path.starts_with("../") {
            return Err(format!("it refers to {path:?}, which does not begin with ./ or ../"));
        }
        found.push(Reference { at, usage });
    }
    Ok(found)
}

/// The text without comments and without white space that has no meaning.
///
/// # Errors
/// As [`references`].
pub(crate) fn squeezed(text: &str) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut last: Option<Token> = None;
    let (mut end, mut lines, mut is_apart) = (0, 0, false);
    for token in tokens(text)? {
        let gap = &text[end..token.at.start];
        lines += gap.matches('\n').count();
        is_apart |= !gap.is_empty();
        end = token.at.end;
        let part = &text[token.at.clone()];
        if token.kind == TokenKind::Comment {
            lines += part.matches('\n').count();
            is_apart = true;
            continue;
        }
        if lines > 0 {
            result.push('\n');
        } else if is_apart && last.is_some_and(|last| touches(last.kind, &text[last.at], part)) {
            result.push(' ');
        }
        result.push_str(part);
        (last, lines, is_apart) = (Some(token), 0, false);
    }
    result.push('\n');
    Ok(result)
}

/// Whether two tokens mean something else without white space between them.
fn touches(kind: TokenKind, before: &str, after: &str) -> bool {
    let (Some(end), Some(start)) = (before.chars().next_back(), after.chars().next()) else { return false };
    let is_number = before.starts_with(|c: char| c.is_ascii_digit());
    match (end, start) {
        // The flags of a regular expression.
        (_, start) if kind == TokenKind::Regex => is_word(start),
        // `++`, `--`, and comments.
        ('+', '+') | ('-', '-' | '>') | ('/', '/' | '*') | ('<', '!') => true,
        (_, '.') => is_number,
        (end, start) => is_word(end) && is_word(start),
    }
}

/// The parts of a script.
///
/// # Errors
/// A string, template, regular expression or comment that does not end.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut scanner = Scanner { text, at: 0, tokens: Vec::new(), templates: Vec::new() };
    while let Some(c) = scanner.rest().chars().next() {
        if c.is_whitespace() {
            scanner.at += c.len_utf8();
        } else {
            scanner.token(c)?;
        }
    }
    if scanner.templates.is_empty() { Ok(scanner.tokens) } else { Err("a template does not end".to_owned()) }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
    /// For each template around this position: how many braces are open inside of its `${`.
    templates: Vec<usize>,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn token(&mut self, first: char) -> Result<(), String> {
        let rest = self.rest();
        let (kind, length) = match first {
            '/' if rest.starts_with("//") => {
                (TokenKind::Comment, Some(rest.find('\n').unwrap_or(rest.len())))
            }
            '/' if rest.starts_with("/*") => (TokenKind::Comment, rest.find("*/").map(|end| end + 2)),
            '/' if self.may_be_regex() => (TokenKind::Regex, regex_length(rest)),
            '"' | '\'' => (TokenKind::String, string_length(rest, first)),
            '`' => return self.template(1),
            '}' if self.templates.last() == Some(&0) => {
                self.templates.pop();
                return self.template(1);
            }
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (TokenKind::Word, Some(end))
            }
            c => (TokenKind::Mark, Some(c.len_utf8())),
        };
        match (first, self.templates.last_mut()) {
            ('{', Some(open)) => *open += 1,
            ('}', Some(open)) => *open -= 1,
            _ => {}
        }
        let length = length.ok_or_else(|| self.endless(kind))?;
        self.push(kind, length);
        Ok(())
    }

    /// A part of a template, whose text begins after `skipped` bytes.
    fn template(&mut self, skipped: usize) -> Result<(), String> {
        let mut characters = self.rest()[skipped..].char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '\\' => {
                    characters.next();
                }
                '`' => {
                    self.push(TokenKind::Template, skipped + offset + 1);
                    return Ok(());
                }
                '$' if self.rest()[skipped + offset..].starts_with("${") => {
                    self.push(TokenKind::Template, skipped + offset + 2);
                    self.templates.push(0);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.endless(TokenKind::Template))
    }

    fn push(&mut self, kind: TokenKind, length: usize) {
        self.tokens.push(Token { kind, at: self.at..self.at + length });
        self.at += length;
    }

    fn endless(&self, kind: TokenKind) -> String {
        let line = self.text[..self.at].matches('\n').count() + 1;
        format!("line {line}: a {kind:?} does not end").to_lowercase()
    }

    /// Whether a slash begins a regular expression: it does not divide what is before it. After `)` and `]` it divides.
    fn may_be_regex(&self) -> bool {
        let Some(last) = self.tokens.iter().rev().find(|token| token.kind != TokenKind::Comment) else {
            return true;
        };
        let part = &self.text[last.at.clone()];
        match last.kind {
            TokenKind::Word => matches!(
                part,
                "return"
                    | "typeof"
                    | "case"
                    | "in"
                    | "of"
                    | "delete"
                    | "void"
                    | "throw"
                    | "new"
                    | "else"
                    | "do"
                    | "instanceof"
                    | "yield"
                    | "await"
            ),
            TokenKind::Template => part.ends_with("${"),
            TokenKind::String | TokenKind::Regex => false,
            TokenKind::Mark | TokenKind::Comment => !matches!(part, ")" | "]"),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Length of a string with its quotes; `None` when its line ends first.
fn string_length(rest: &str, quote: char) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    while let Some((offset, c)) = characters.next() {
        match c {
            '\\' => {
                characters.next();
            }
            '\n' => return None,
            c if c == quote => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

/// Length of a regular expression without its flags, which are the next token.
fn regex_length(rest: &str) -> Option<usize> {
    let mut in_class = false;
    let mut characters = rest.char_indices().skip(1);
    while let Some((offset, c)) = characters.next() {
        match c {
            '\\' => {
                characters.next();
            }
            '\n' => return None,
            '[' => in_class = true,
            ']' => in_class = false,
            '/' if !in_class => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(&str, Usage)> {
        references(text).unwrap().into_iter().map(|found| (&text[found.at], found.usage)).collect()
    }

    #[test]
    fn every_form_of_a_reference_is_found() {
        let text = r#"
            import { a } from "./a.js";
            import './b.js';
            export * from"./vendor/c.js";
            const d = await import("./d.js");
            const e = new URL("./e.svg", import.meta.url).href;
        "#;
        assert_eq!(
            paths(text),
            [
                ("./a.js", Usage::Import),
                ("./b.js", Usage::Import),
                ("./vendor/c.js", Usage::Import),
                ("./d.js", Usage::OnDemand),
                ("./e.svg", Usage::OnDemand),
            ]
        );
    }

    #[test]
    fn what_only_looks_like_a_reference_is_none() {
        let text = r#"
            /** @typedef {import("./types.js").Task} Task */
            // import "./comment.js";
            const quoted = "import './string.js'";
            const template = `import "./template.js" ${f(`${{ a: "}" }.a} from "./inner.js"`)} from "./after.js"`;
            const regex = /["'`\/[/]from "\/ ] "x.js/;
            x.import("./method.js");
            new URL("./page", location.href);
        "#;
        assert_eq!(paths(text), []);
    }

    #[test]
    fn names_of_packages_are_refused() {
        let refused = references("import { h } from \"preact\";").unwrap_err();
        assert!(refused.contains("\"preact\""), "{refused}");
    }

    #[test]
    fn a_slash_divides_or_begins_a_regular_expression() {
        assert_eq!(paths("const a = b / 2; import './x.js'; c / d"), [("./x.js", Usage::Import)]);
        assert_eq!(paths("f(/'/); import './x.js'; g(a[0] / 2, '/')"), [("./x.js", Usage::Import)]);
        assert_eq!(paths("const s = `${a / b}`; import './x.js'"), [("./x.js", Usage::Import)]);
    }

    #[test]
    fn comments_and_space_are_left_out() {
        let text = "/* one\n   two */\n  let a = 1; // three\n    let b = `  // four\n  ${a /* five */}`;\n";
        assert_eq!(squeezed(text).unwrap(), "\nlet a=1;\nlet b=`  // four\n  ${a}`;\n");
        assert_eq!(squeezed("if (a) {\n  b();\n\n  // c\n}").unwrap(), "if(a){\nb();\n}\n");
    }

    #[test]
    fn space_that_has_a_meaning_stays() {
        for (text, expected) in [
            ("return/**/a", "return a"),
            ("a + +b - -c", "a+ +b- -c"),
            ("a / /b/g", "a/ /b/g"),
            ("/a/ in b", "/a/ in b"),
            ("1 .toFixed()", "1 .toFixed()"),
            ("a ? .5 : b", "a?.5:b"),
            ("return \"a  b\"", "return\"a  b\""),
            ("async (a) => await b", "async(a)=>await b"),
            ("a < !b", "a< !b"),
        ] {
            assert_eq!(squeezed(text).unwrap(), format!("{expected}\n"), "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_an_error_with_its_line() {
        for text in ["\n'a", "\n`a", "\n/* a", "\n`${a"] {
            assert!(references(text).is_err(), "{text:?}");
        }
        assert_eq!(references("\n\n'a").unwrap_err(), "line 3: a string does not end");
    }
}
