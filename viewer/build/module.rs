//! The imports and exports of a module, and its body as a function: so that several modules are one file.
//!
//! A module becomes `const $NAME = (() => { const {imported} = $OTHER; …; return {exported}; })();`. Exports are values and
//! not bindings then, so `export let` is an error.

use crate::script::{Token, TokenKind, tokens};

/// A module whose imports and exports are taken out.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// In the order of the text.
    pub(crate) imports: Vec<Import>,
    /// Exported name and what it stands for.
    pub(crate) exports: Vec<(String, Value)>,
    /// The rest of the text.
    pub(crate) body: String,
}

/// What an export stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A name of this module.
    Own(String),
    /// A name of the module of that import.
    Of(usize, String),
}

/// An import.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// As it is written: `./x.js`.
    pub(crate) path: String,
    /// Name there, and name here.
    pub(crate) names: Vec<(String, String)>,
}

/// The name of a default export in the object of a module, and in its body.
const DEFAULT: &str = "$default";

impl Module {
    /// Reads a module.
    ///
    /// # Errors
    /// A form of import or export that this build does not know.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut tokens = tokens(text)?;
        tokens.retain(|token| token.kind != TokenKind::Comment);
        let mut reader = Reader { text, tokens: &tokens, at: 0, module: Self::default() };
        let (mut depth, mut copied) = (0_usize, 0);
        while let Some(token) = tokens.get(reader.at) {
            let word = reader.word(0);
            let is_statement = depth == 0 && token.kind == TokenKind::Word;
            let is_import = is_statement && word == "import" && !["(", "."].contains(&reader.word(1));
            if is_import || (is_statement && word == "export") {
                reader.module.body.push_str(&text[copied..token.at.start]);
                reader.at += 1;
                if is_import {
                    reader.import()?;
                } else {
                    reader.export()?;
                }
                copied = reader.tokens.get(reader.at).map_or(text.len(), |next| next.at.start);
                // A line of its own, or the next statement would join the previous one.
                reader.module.body.push('\n');
                continue;
            }
            depth = match (token.kind, word) {
                (TokenKind::Mark, "{" | "(" | "[") => depth + 1,
                (TokenKind::Mark, "}" | ")" | "]") => depth.saturating_sub(1),
                (TokenKind::Template, part) => (depth + usize::from(part.ends_with("${")))
                    .saturating_sub(usize::from(part.starts_with('}'))),
                _ => depth,
            };
            reader.at += 1;
        }
        reader.module.body.push_str(&text[copied.min(text.len())..]);
        Ok(reader.module)
    }

    /// The name that the export of that name has in the object of this module.
    pub(crate) fn key(exported: &str) -> &str {
        if exported == "default" { DEFAULT } else { exported }
    }
}

/// Reads statements; `at` is the next token.
struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    module: Module,
}

impl<'a> Reader<'a> {
    /// The token that is so many further on; empty at the end.
    fn word(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).map_or("", |token| &self.text[token.at.clone()])
    }

    fn next(&mut self) -> &'a str {
        let word = self.word(0);
        self.at += 1;
        word
    }

    fn expect(&mut self, expected: &str) -> Result<(), String> {
        match self.next() {
            word if word == expected => Ok(()),
            word => Err(format!("{expected:?} is expected before {word:?} in an import or export")),
        }
    }

    /// After `import`.
    fn import(&mut self) -> Result<(), String> {
        let mut names = Vec::new();
        if !self.word(0).starts_with(['"', '\'']) {
            if self.word(0) != "{" {
                if self.word(0) == "*" {
                    return Err("import * is not supported: name what is imported".to_owned());
                }
                names.push((DEFAULT.to_owned(), self.next().to_owned()));
                if self.word(0) == "," {
                    self.next();
                }
            }
            if self.word(0) == "{" {
                let named = self.names()?;
                names.extend(named.into_iter().map(|(there, here)| (Module::key(&there).to_owned(), here)));
            }
            self.expect("from")?;
        }
        let path = self.path();
        self.module.imports.push(Import { path, names });
        Ok(())
    }

    /// After `export`.
    fn export(&mut self) -> Result<(), String> {
        match self.word(0) {
            "{" => {
                let names = self.names()?;
                let from = if self.word(0) == "from" {
                    self.next();
                    let path = self.path();
                    self.module.imports.push(Import { path, names: Vec::new() });
                    Some(self.module.imports.len() - 1)
                } else {
                    self.end();
                    None
                };
                self.module.exports.extend(names.into_iter().map(|(inside, outside)| {
                    let value = match from {
                        Some(import) => Value::Of(import, Module::key(&inside).to_owned()),
                        None => Value::Own(inside),
                    };
                    (Module::key(&outside).to_owned(), value)
                }));
            }
            "default" => {
                self.next();
                self.module.exports.push((DEFAULT.to_owned(), Value::Own(DEFAULT.to_owned())));
                self.module.body.push_str("const $default=");
            }
            "const" => self.declared(1)?,
            "class" => self.declared(1)?,
            "function" if self.word(1) == "*" => self.declared(2)?,
            "function" => self.declared(1)?,
            "async" if self.word(2) == "*" => self.declared(3)?,
            "async" => self.declared(2)?,
            other => return Err(format!("export {other} is not supported")),
        }
        Ok(())
    }

    /// A declaration, whose name is so many tokens further on.
    fn declared(&mut self, ahead: usize) -> Result<(), String> {
        let name = self.word(ahead);
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$') {
            return Err(format!("export of {name:?} is not supported: declare one name"));
        }
        self.module.exports.push((name.to_owned(), Value::Own(name.to_owned())));
        Ok(())
    }

    /// `{a, b as c}`: each with its name before and after `as`.
    fn names(&mut self) -> Result<Vec<(String, String)>, String> {
        self.expect("{")?;
        let mut names = Vec::new();
        while self.word(0) != "}" {
            let name = self.next().to_owned();
            let other = if self.word(0) == "as" {
                self.next();
                self.next().to_owned()
            } else {
                name.clone()
            };
            names.push((name, other));
            match self.word(0) {
                "," => drop(self.next()),
                "}" => {}
                word => return Err(format!("a comma is expected before {word:?} in an import or export")),
            }
        }
        self.expect("}")?;
        Ok(names)
    }

    /// A path, without its quotes, and the end of the statement.
    fn path(&mut self) -> String {
        let path = self.next().trim_matches(['"', '\'']).to_owned();
        self.end();
        path
    }

    fn end(&mut self) {
        if self.word(0) == ";" {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(path: &str, names: &[(&str, &str)]) -> Import {
        let names = names.iter().map(|(there, here)| ((*there).to_owned(), (*here).to_owned())).collect();
        Import { path: path.to_owned(), names }
    }

    fn own(name: &str) -> Value {
        Value::Own(name.to_owned())
    }

    #[test]
    fn imports_of_every_form_are_taken_out() {
        let text = "import \"./a.js\";import{b as c,d}from'./b.js'\nimport e, { default as f } from \"./c.js\";\nlet x = import.meta;";
        let module = Module::read(text).unwrap();
        assert_eq!(
            module.imports,
            [
                import("./a.js", &[]),
                import("./b.js", &[("b", "c"), ("d", "d")]),
                import("./c.js", &[("$default", "e"), ("$default", "f")]),
            ]
        );
        assert_eq!(module.body.trim(), "let x = import.meta;");
        assert!(Module::read("import * as a from './a.js'").is_err());
    }

    #[test]
    fn exports_of_every_form_are_named() {
        let text = "export const a = { b: `${{ c }.c}` };\nexport async function d() {}\nexport class E {}\n\
                    export { f as g, h };\nexport { i as j } from './i.js';\nexport default function () {}";
        let module = Module::read(text).unwrap();
        let exports: Vec<(&str, Value)> =
            module.exports.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(
            exports,
            [
                ("a", own("a")),
                ("d", own("d")),
                ("E", own("E")),
                ("g", own("f")),
                ("h", own("h")),
                ("j", Value::Of(0, "i".to_owned())),
                ("$default", own("$default")),
            ]
        );
        let body: Vec<&str> = module.body.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(
            body,
            [
                "const a = { b: `${{ c }.c}` };",
                "async function d() {}",
                "class E {}",
                "const $default=",
                "function () {}"
            ]
        );
    }

    #[test]
    fn exports_that_could_change_are_refused() {
        for text in ["export let a = 1", "export var a", "export * from './a.js'", "export const { a } = b"] {
            assert!(Module::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_statements_at_the_top_count() {
        let text = "if (a) { b.export({ import: 1 }); }\nconst c = () => import(\"./d.js\");";
        let module = Module::read(text).unwrap();
        assert_eq!((module.imports.len(), module.exports.len(), module.body.as_str()), (0, 0, text));
    }
}
