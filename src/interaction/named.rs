//! Named placeholders: `:name` in a text becomes `$n`. A plain machine: text and names in, text and places out.
//!
//! In front of the run loop, for calls that bind by name. It looks at the text with the lexer of `sql`, so that strings,
//! quoted names, comments, `::` and `:=` are left alone; it knows no values.

use crate::error::BadInput;
use crate::sql::{self, Token};

/// A text whose names have become numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) sql: String,
    /// For each bound name, in the order they were given: the number of its placeholder.
    pub(super) places: Vec<usize>,
}

/// Gives each of `names` a number, by its first place in `sql`.
///
/// # Errors
/// The first name that is bound twice, a `:name` that is not bound, a numbered placeholder, a name without a place.
pub(super) fn rewrite(sql: &str, names: &[&str]) -> Result<Rewritten, BadInput> {
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(BadInput::DuplicateName { name: (*name).into() });
        }
    }
    let mut text = String::with_capacity(sql.len() + 8);
    let mut places = vec![None; names.len()];
    let (mut copied, mut used) = (0, 0);
    for place in Names::new(sql) {
        let (at, name) = place?;
        let Some(index) = names.iter().position(|bound| *bound == name) else {
            return Err(BadInput::UnboundName { name: name.into() });
        };
        let number = *places[index].get_or_insert_with(|| {
            used += 1;
            used
        });
        text.push_str(&sql[copied..at]);
        // `x:n` is a word and a name; `x$1` would be one word.
        if text.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()) {
            text.push(' ');
        }
        text.push('$');
        text.push_str(&number.to_string());
        copied = at + 1 + name.len();
    }
    text.push_str(&sql[copied..]);
    let places = names
        .iter()
        .zip(places)
        .map(|(name, place)| place.ok_or_else(|| BadInput::UnusedName { name: (*name).into() }));
    Ok(Rewritten {
        sql: text,
        places: places.collect::<Result<_, _>>()?,
    })
}

/// The `:name`s of a text, each with the byte its colon stands at.
struct Names<'a> {
    tokens: std::iter::Peekable<Box<dyn Iterator<Item = (usize, Token<'a>)> + 'a>>,
}

impl<'a> Names<'a> {
    fn new(sql: &'a str) -> Self {
        let tokens: Box<dyn Iterator<Item = _>> = Box::new(sql::positions(sql));
        Self {
            tokens: tokens.peekable(),
        }
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Result<(usize, &'a str), BadInput>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, token) = self.tokens.next()?;
            if let Some((number, _)) = sql::placeholder(token) {
                let placeholder = format!("${number}");
                return Some(Err(BadInput::MixedPlaceholders { placeholder }));
            }
            if token != Token::Mark(':') {
                continue;
            }
            // Only what stands right behind the colon belongs to it. `::` and `:=` are one operator, and what follows them is
            // no name; `:'x'` is the server's to refuse.
            let behind = self.tokens.next_if(|(next, _)| *next == at + 1);
            if let Some((_, Token::Word(word))) = behind {
                return Some(Ok((at, word)));
            }
        }
    }
}

/// Takes a text apart and puts it together again with the names it has.
///
/// # Panics
/// Where a text without names changes, or the lexer sees something else in the new text than in the old one.
#[cfg(fuzzing)]
pub fn fuzz_named(bytes: &[u8]) {
    let Ok(sql) = str::from_utf8(bytes) else { return };
    let Ok(found) = Names::new(sql).collect::<Result<Vec<_>, _>>() else {
        assert!(rewrite(sql, &[]).is_err(), "a number beside names");
        return;
    };
    let mut names: Vec<&str> = Vec::new();
    for (_, name) in &found {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let rewritten = rewrite(sql, &names).expect("its own names");
    assert_eq!(rewritten.places, (1..=names.len()).collect::<Vec<_>>());
    if names.is_empty() {
        assert_eq!(rewritten.sql, sql);
    } else {
        assert!(rewrite(sql, &names[1..]).is_err(), "a name that is not bound");
    }
    let mut left = sql::tokens(&rewritten.sql);
    let mut places = found.iter().peekable();
    let mut tokens = sql::positions(sql);
    while let Some((at, token)) = tokens.next() {
        let Some((_, name)) = places.next_if(|(place, _)| *place == at) else {
            assert_eq!(left.next(), Some(token));
            continue;
        };
        assert_eq!(tokens.next(), Some((at + 1, Token::Word(name))));
        let number = left.next().and_then(sql::placeholder).map(|(number, _)| number);
        assert_eq!(number, names.iter().position(|known| known == name).map(|at| at + 1));
    }
    assert_eq!(left.next(), None);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Rewritten, rewrite};
    use crate::error::BadInput;
    use crate::sql;

    fn done(sql: &str, names: &[&str]) -> (String, Vec<usize>) {
        let Rewritten { sql, places } = rewrite(sql, names).expect("sound names");
        (sql, places)
    }

    #[test]
    fn names_become_numbers_by_their_first_place() {
        assert_eq!(
            done("SELECT :b + :a*:b, :a::int, f(x=>:c)", &["a", "b", "c"]),
            ("SELECT $1 + $2*$1, $2::int, f(x=>$3)".into(), vec![2, 1, 3])
        );
        assert_eq!(done("SELECT:a", &["a"]).0, "SELECT $1", "not one word");
        assert_eq!(
            done("SELECT $$x$$:a", &["a"]).0,
            "SELECT $$x$$ $1",
            "not one more dollar quote"
        );
        assert_eq!(done("f(a := :a)", &["a"]).0, "f(a := $1)");
        assert_eq!(done("f(a:=:größe)", &["größe"]).0, "f(a:=$1)");
        assert_eq!(done("x:::a", &["a"]).0, "x::$1", "a cast, and then a name");
        assert_eq!(done("a[1 : n] || :b", &["b"]).0, "a[1 : n] || $1");
    }

    #[test]
    fn what_is_no_name_stays() {
        let sql =
            "SELECT ':a', E'\\':a', $$ :a $$, $q$ :a $q$, U&':a', \":a\", 1::int, x := 2 -- :a\n /* :a /* :a */ :a */";
        let (text, _) = done(&format!("{sql}, :b"), &["b"]);
        assert_eq!(text, format!("{sql}, $1"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let name = || String::from("a");
        assert_eq!(rewrite("SELECT :a", &[]), Err(BadInput::UnboundName { name: name() }));
        assert_eq!(
            rewrite("SELECT x[1:a]", &["n"]),
            Err(BadInput::UnboundName { name: name() })
        );
        assert_eq!(
            rewrite("SELECT ':a'", &["a"]),
            Err(BadInput::UnusedName { name: name() })
        );
        assert_eq!(
            rewrite("SELECT :a", &["a", "a"]),
            Err(BadInput::DuplicateName { name: name() })
        );
        let placeholder = "$2".into();
        assert_eq!(
            rewrite("SELECT :a, $2", &["a"]),
            Err(BadInput::MixedPlaceholders { placeholder })
        );
    }

    /// Pieces of text that hold no name, whatever stands beside them.
    fn nameless() -> impl Strategy<Value = String> {
        let inside = "[a-z:$\" ]{0,8}";
        prop_oneof![
            "[a-z]{1,6}".prop_map(|word| format!(" {word} ")),
            inside.prop_map(|text| format!(" '{text}' ")),
            inside.prop_map(|text| format!(" E'\\'{text}' ")),
            "[a-z: ']{0,8}".prop_map(|text| format!(" $q${text}$q$ ")),
            "[a-z:' ]{0,8}".prop_map(|text| format!(" \"{text}\" ")),
            inside.prop_map(|text| format!(" -- {text}\n")),
            inside.prop_map(|text| format!(" /* {text} /* :x */ :y */ ")),
            Just("x::int".into()),
            Just("a := 1".into()),
            Just(" : ".into()),
            Just("[1 : n]".into()),
            "[-+*/<>=(),;.]{1,3}".prop_filter("no comment begins", |marks| !marks.contains("--")
                && !marks.contains("/*")),
        ]
    }

    proptest! {
        /// A text without names comes back unchanged.
        #[test]
        fn a_text_without_names_is_left_alone(pieces in prop::collection::vec(nameless(), 0..12)) {
            let sql = pieces.join(" ");
            prop_assert_eq!(done(&sql, &[]), (sql, vec![]));
        }

        /// Between such pieces, names are found where they were put, and nothing else is touched.
        #[test]
        fn names_are_found_where_they_are(
            pieces in prop::collection::vec((nameless(), 0usize..4), 1..12),
        ) {
            let names = ["a", "b_2", "größe", "x$y"];
            let (mut sql, mut expected, mut order) = (String::new(), String::new(), Vec::new());
            for (piece, name) in &pieces {
                if !order.contains(name) {
                    order.push(*name);
                }
                let number = 1 + order.iter().position(|known| known == name).expect("just put there");
                sql.push_str(&format!("{piece} :{} ", names[*name]));
                expected.push_str(&format!("{piece} ${number} "));
            }
            let bound: Vec<&str> = order.iter().map(|at| names[*at]).collect();
            let places: Vec<usize> = (1..=bound.len()).collect();
            prop_assert_eq!(done(&sql, &bound), (expected.clone(), places));
            let numbers = sql::positions(&expected).filter_map(|(_, token)| sql::placeholder(token));
            prop_assert_eq!(numbers.count(), pieces.len());
        }

        /// Whatever the text, it is taken apart without a panic, and each change is a name.
        #[test]
        fn any_text_is_taken_apart(sql in "\\PC{0,60}|[-/*'\"$eE:=a1 \\\\]{0,40}") {
            if let Ok(rewritten) = rewrite(&sql, &["a"]) {
                prop_assert!(rewritten.sql.contains("$1"));
            }
        }
    }
}
