//! Expressions, by precedence climbing.
//!
//! A part of the parser. A plain machine.

use super::Parser;
use crate::postgres::engine::ast::{Call, Expression, Node, Order, Quantity, TypeName};
use crate::postgres::engine::lexer::Kind;
use crate::wire::Report;

// How tightly operators bind, from the loosest.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const IS: u8 = 4;
const COMPARISON: u8 = 5;
const PATTERN: u8 = 6;
const OTHER: u8 = 7;
const SUM: u8 = 8;
const PRODUCT: u8 = 9;
const POWER: u8 = 10;
const AT_ZONE: u8 = 11;
const SIGN: u8 = 12;

fn binding(operator: &str) -> u8 {
    match operator {
        "=" | "<" | ">" | "<=" | ">=" | "<>" | "!=" => COMPARISON,
        "+" | "-" => SUM,
        "*" | "/" | "%" => PRODUCT,
        "^" => POWER,
        _ => OTHER,
    }
}

fn boxed(node: Node, at: usize) -> Box<Expression> {
    Box::new(Expression { node, at })
}

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Expression, Report> {
        self.climb(OR)
    }

    fn climb(&mut self, least: u8) -> Result<Expression, Report> {
        self.nested(|parser| {
            let mut left = parser.prefix(least)?;
            while let Some(next) = parser.infix(&left, least)? {
                left = next;
            }
            Ok(left)
        })
    }

    fn prefix(&mut self, least: u8) -> Result<Expression, Report> {
        let at = self.position();
        if least <= NOT && self.take_word("not") {
            let value = self.climb(NOT)?;
            return Ok(Expression {
                node: Node::Not(Box::new(value)),
                at,
            });
        }
        for sign in ["-", "+"] {
            if self.take_operator(sign) {
                let value = self.climb(SIGN)?;
                let node = match (sign, value.node) {
                    ("-", Node::Number(digits)) => Node::Number(format!("-{digits}")),
                    (_, node) => Node::Unary(sign.to_owned(), boxed(node, value.at)),
                };
                return Ok(Expression { node, at });
            }
        }
        if let Kind::Operator(operator) = self.kind()
            && ["@", "~", "!!"].contains(&operator.as_str())
        {
            let operator = operator.clone();
            self.advance();
            let value = self.climb(OTHER + 1)?;
            return Ok(Expression {
                node: Node::Unary(operator, Box::new(value)),
                at,
            });
        }
        let value = self.primary()?;
        self.suffixes(value)
    }

    /// `::type`, `[index]`, `.field`, COLLATE.
    fn suffixes(&mut self, mut value: Expression) -> Result<Expression, Report> {
        loop {
            let at = self.position();
            if self.take_operator("::") {
                let of = self.type_name()?;
                value = Expression {
                    node: Node::Cast(Box::new(value), of),
                    at,
                };
            } else if self.take_operator("[") {
                let index = self.expression()?;
                self.expect_operator("]")?;
                value = Expression {
                    at: value.at,
                    node: Node::Index(Box::new(value), Box::new(index)),
                };
            } else if self.is_word("collate") {
                return Err(super::judge::unsupported("COLLATE"));
            } else {
                return Ok(value);
            }
        }
    }

    /// The expression that goes on after `left`, if the next operator binds at least as tightly as `least`.
    fn infix(&mut self, left: &Expression, least: u8) -> Result<Option<Expression>, Report> {
        let at = self.position();
        let found = |node| Ok(Some(Expression { node, at }));
        let left = || Box::new(left.clone());
        match self.kind().clone() {
            Kind::Word(word) => match word.as_str() {
                "or" if least <= OR => {
                    self.advance();
                    found(Node::Or(left(), Box::new(self.climb(AND)?)))
                }
                "and" if least <= AND => {
                    self.advance();
                    found(Node::And(left(), Box::new(self.climb(NOT)?)))
                }
                "is" if least <= IS => self.is_test(left(), at).map(Some),
                "isnull" if least <= IS => {
                    self.advance();
                    found(Node::IsNull(left(), false))
                }
                "notnull" if least <= IS => {
                    self.advance();
                    found(Node::IsNull(left(), true))
                }
                "between" | "in" | "like" | "ilike" if least <= PATTERN => self.pattern(left(), at, false).map(Some),
                "not" if least <= PATTERN && self.negated_pattern() => {
                    self.advance();
                    self.pattern(left(), at, true).map(Some)
                }
                "at" if least <= AT_ZONE && self.is_word_at(1, "time") => {
                    self.expect_words(&["at", "time", "zone"])?;
                    let zone = self.climb(AT_ZONE + 1)?;
                    let call = call("timezone", vec![zone, *left()]);
                    found(Node::Call(Box::new(call)))
                }
                "operator" if least <= OTHER && self.is_operator_at(1, "(") => {
                    Err(super::judge::unsupported("OPERATOR()"))
                }
                _ => Ok(None),
            },
            Kind::Operator(operator) => {
                const NONE: [&str; 9] = ["(", ")", "[", "]", ",", ";", ".", "::", ":="];
                if NONE.contains(&operator.as_str()) || operator == ":" || binding(&operator) < least {
                    return Ok(None);
                }
                let level = binding(&operator);
                self.advance();
                if let Some(quantified) = self.quantified(left(), &operator)? {
                    return found(quantified);
                }
                // All of them associate to the left; comparisons do not associate at all.
                let right = Box::new(self.climb(level + 1)?);
                let operator = if operator == "!=" { "<>".to_owned() } else { operator };
                found(Node::Binary(operator, left(), right))
            }
            _ => Ok(None),
        }
    }

    fn negated_pattern(&self) -> bool {
        ["between", "in", "like", "ilike"]
            .iter()
            .any(|word| self.is_word_at(1, word))
    }

    fn is_test(&mut self, value: Box<Expression>, at: usize) -> Result<Expression, Report> {
        self.advance();
        let negated = self.take_word("not");
        let node = if self.take_word("null") {
            Node::IsNull(value, negated)
        } else if self.take_word("true") {
            Node::IsBool(value, Some(true), negated)
        } else if self.take_word("false") {
            Node::IsBool(value, Some(false), negated)
        } else if self.take_word("unknown") {
            Node::IsBool(value, None, negated)
        } else if self.take_words(&["distinct", "from"]) {
            Node::IsDistinct(value, Box::new(self.climb(IS + 1)?), negated)
        } else {
            return Err(self.unexpected());
        };
        Ok(Expression { node, at })
    }

    fn pattern(&mut self, value: Box<Expression>, at: usize, negated: bool) -> Result<Expression, Report> {
        let node = if self.take_word("between") {
            let symmetric = self.take_word("symmetric");
            let low = Box::new(self.climb(PATTERN + 1)?);
            self.expect_word("and")?;
            let high = Box::new(self.climb(PATTERN + 1)?);
            Node::Between {
                value,
                low,
                high,
                negated,
                symmetric,
            }
        } else if self.take_word("in") {
            self.expect_operator("(")?;
            let node = if self.starts_query() {
                let query = Box::new(self.query()?);
                Node::InQuery { value, query, negated }
            } else {
                let list = self.expressions()?;
                Node::In { value, list, negated }
            };
            self.expect_operator(")")?;
            node
        } else {
            let insensitive = self.is_word("ilike");
            self.advance();
            let pattern = Box::new(self.climb(PATTERN + 1)?);
            let escape = match self.take_word("escape") {
                true => Some(Box::new(self.climb(PATTERN + 1)?)),
                false => None,
            };
            Node::Like {
                value,
                pattern,
                escape,
                insensitive,
                negated,
            }
        };
        Ok(Expression { node, at })
    }

    fn quantified(&mut self, value: Box<Expression>, operator: &str) -> Result<Option<Node>, Report> {
        let all = self.is_word("all");
        if !(all || self.is_word("any") || self.is_word("some")) || !self.is_operator_at(1, "(") {
            return Ok(None);
        }
        self.advance();
        self.advance();
        let array = if self.starts_query() {
            Quantity::Query(Box::new(self.query()?))
        } else {
            Quantity::Array(Box::new(self.expression()?))
        };
        self.expect_operator(")")?;
        let operator = if operator == "!=" { "<>" } else { operator }.to_owned();
        Ok(Some(Node::Quantified {
            operator,
            value,
            array,
            all,
        }))
    }

    /// Whether a query stands here, as opposed to an expression.
    pub(super) fn starts_query(&self) -> bool {
        let mut ahead = 0;
        while self.is_operator_at(ahead, "(") {
            ahead += 1;
        }
        ["select", "with", "values"]
            .iter()
            .any(|word| self.is_word_at(ahead, word))
    }

    fn primary(&mut self) -> Result<Expression, Report> {
        let at = self.position();
        let node = match self.kind().clone() {
            Kind::Number(digits) => self.constant(Node::Number(digits)),
            Kind::Text(text) => self.constant(Node::Text(text)),
            Kind::Bits(digits) => self.constant(Node::Bits(digits)),
            Kind::Parameter(number) => self.constant(Node::Parameter(number)),
            Kind::Operator(mark) if mark == "(" => self.parenthesis()?,
            Kind::Operator(mark) if mark == "*" => self.constant(Node::Star(None)),
            Kind::Word(word) => self.word(&word, at)?,
            Kind::Quoted(_) => self.column_or_call()?,
            _ => return Err(self.unexpected()),
        };
        Ok(Expression { node, at })
    }

    fn constant(&mut self, node: Node) -> Node {
        self.advance();
        node
    }

    fn parenthesis(&mut self) -> Result<Node, Report> {
        self.advance();
        if self.starts_query() {
            let query = Box::new(self.query()?);
            self.expect_operator(")")?;
            return Ok(Node::Subquery(query));
        }
        let mut items = self.expressions()?;
        self.expect_operator(")")?;
        if items.len() > 1 {
            return Ok(Node::Row(items));
        }
        Ok(items.remove(0).node)
    }

    fn word(&mut self, word: &str, at: usize) -> Result<Node, Report> {
        let open = self.is_operator_at(1, "(");
        Ok(match word {
            "null" => self.constant(Node::Null),
            "true" => self.constant(Node::Bool(true)),
            "false" => self.constant(Node::Bool(false)),
            "default" => self.constant(Node::Default),
            "case" => self.case()?,
            "cast" if open => self.cast()?,
            "exists" if open => {
                self.advance();
                self.advance();
                let query = Box::new(self.query()?);
                self.expect_operator(")")?;
                Node::Exists(query)
            }
            "array" if self.is_operator_at(1, "[") => {
                self.advance();
                self.advance();
                let items = if self.is_operator("]") {
                    Vec::new()
                } else {
                    self.expressions()?
                };
                self.expect_operator("]")?;
                Node::Array(items)
            }
            "array" if open => {
                self.advance();
                self.advance();
                let query = Box::new(self.query()?);
                self.expect_operator(")")?;
                Node::ArrayQuery(query)
            }
            "row" if open => {
                self.advance();
                self.advance();
                let items = if self.is_operator(")") {
                    Vec::new()
                } else {
                    self.expressions()?
                };
                self.expect_operator(")")?;
                Node::Row(items)
            }
            "current_date" | "current_timestamp" | "localtimestamp" | "current_user" | "session_user" | "user"
            | "current_catalog" | "current_role" | "current_schema"
                if !open =>
            {
                self.advance();
                Node::Call(Box::new(call(word, Vec::new())))
            }
            "extract" | "substring" | "position" | "trim" | "overlay" if open => self.spelled_call(word)?,
            "interval" | "timestamp" | "timestamptz" | "date" | "bytea" | "uuid" | "json" | "jsonb" | "text"
            | "numeric"
                if matches!(self.kind_at(1), Kind::Text(_)) =>
            {
                self.advance();
                let text = self.text()?;
                let name = TypeName {
                    name: word.to_owned(),
                    modifiers: Vec::new(),
                    array: false,
                    at,
                };
                Node::Cast(boxed(Node::Text(text), at), name)
            }
            _ if super::is_reserved(word) && !(open && matches!(word, "left" | "right" | "current_schema")) => {
                return Err(self.unexpected());
            }
            _ => self.column_or_call()?,
        })
    }

    fn column_or_call(&mut self) -> Result<Node, Report> {
        let mut parts = vec![self.label()?];
        while self.is_operator(".") {
            self.advance();
            if self.take_operator("*") {
                return Ok(Node::Star(parts.pop()));
            }
            parts.push(self.label()?);
        }
        if self.is_operator("(") {
            let name = parts.pop().unwrap_or_default();
            return Ok(Node::Call(Box::new(self.call(parts.pop(), name)?)));
        }
        Ok(Node::Column(parts))
    }

    /// A call's arguments and what may follow them; its name has been read.
    pub(super) fn call(&mut self, schema: Option<String>, name: String) -> Result<Call, Report> {
        self.expect_operator("(")?;
        let mut call = call(&name, Vec::new());
        call.schema = schema;
        if self.is_operator("*") && self.is_operator_at(1, ")") {
            self.advance();
            call.star = true;
        } else if !self.is_operator(")") {
            call.distinct = self.take_word("distinct");
            if !call.distinct {
                self.take_word("all");
            }
            call.arguments = self.expressions()?;
            if self.take_words(&["order", "by"]) {
                call.order = self.order_keys()?;
            }
        }
        self.expect_operator(")")?;
        if self.take_word("filter") {
            self.expect_operator("(")?;
            self.expect_word("where")?;
            call.filter = Some(self.expression()?);
            self.expect_operator(")")?;
        }
        if self.is_word("over") && (self.is_operator_at(1, "(") || matches!(self.kind_at(1), Kind::Word(_))) {
            return Err(super::judge::unsupported("window functions"));
        }
        Ok(call)
    }

    pub(super) fn order_keys(&mut self) -> Result<Vec<Order>, Report> {
        self.list(|parser| {
            let key = parser.expression()?;
            let descending = parser.take_word("desc");
            if !descending {
                parser.take_word("asc");
            }
            let mut nulls_first = descending;
            if parser.take_word("nulls") {
                nulls_first = parser.take_word("first");
                if !nulls_first {
                    parser.expect_word("last")?;
                }
            }
            Ok(Order {
                key,
                descending,
                nulls_first,
            })
        })
    }

    fn case(&mut self) -> Result<Node, Report> {
        self.advance();
        let operand = match self.is_word("when") {
            true => None,
            false => Some(Box::new(self.expression()?)),
        };
        let mut branches = Vec::new();
        while self.take_word("when") {
            let condition = self.expression()?;
            self.expect_word("then")?;
            branches.push((condition, self.expression()?));
        }
        if branches.is_empty() {
            return Err(self.unexpected());
        }
        let otherwise = match self.take_word("else") {
            true => Some(Box::new(self.expression()?)),
            false => None,
        };
        self.expect_word("end")?;
        Ok(Node::Case {
            operand,
            branches,
            otherwise,
        })
    }

    fn cast(&mut self) -> Result<Node, Report> {
        self.advance();
        self.advance();
        let value = self.expression()?;
        self.expect_word("as")?;
        let of = self.type_name()?;
        self.expect_operator(")")?;
        Ok(Node::Cast(Box::new(value), of))
    }

    /// Functions whose arguments are parted by words.
    fn spelled_call(&mut self, word: &str) -> Result<Node, Report> {
        self.advance();
        self.advance();
        let at = self.position();
        let mut name = word;
        let mut arguments = Vec::new();
        match word {
            "extract" => {
                let field = match self.kind() {
                    Kind::Text(field) | Kind::Word(field) | Kind::Quoted(field) => field.to_ascii_lowercase(),
                    _ => return Err(self.unexpected()),
                };
                self.advance();
                self.expect_word("from")?;
                arguments = vec![
                    Expression {
                        node: Node::Text(field),
                        at,
                    },
                    self.expression()?,
                ];
            }
            "position" => {
                let part = self.climb(PATTERN + 1)?;
                self.expect_word("in")?;
                arguments = vec![self.expression()?, part];
            }
            "trim" => {
                name = if self.take_word("leading") {
                    "ltrim"
                } else if self.take_word("trailing") {
                    "rtrim"
                } else {
                    self.take_word("both");
                    "btrim"
                };
                let mut characters = None;
                if !self.take_word("from") {
                    let first = self.expression()?;
                    if self.take_word("from") {
                        characters = Some(first);
                    } else {
                        arguments.push(first);
                    }
                }
                if arguments.is_empty() {
                    arguments.push(self.expression()?);
                }
                arguments.extend(characters);
                while self.take_operator(",") {
                    arguments.push(self.expression()?);
                }
            }
            _ => {
                arguments.push(self.expression()?);
                for keyword in ["placing", "from", "for"] {
                    if self.take_word(keyword) {
                        // `substring(x FOR n)` begins at the first character.
                        if keyword == "for" && arguments.len() == 1 {
                            arguments.push(Expression {
                                node: Node::Number("1".to_owned()),
                                at,
                            });
                        }
                        arguments.push(self.expression()?);
                    }
                }
                while self.take_operator(",") {
                    arguments.push(self.expression()?);
                }
            }
        }
        self.expect_operator(")")?;
        Ok(Node::Call(Box::new(call(name, arguments))))
    }
}

fn call(name: &str, arguments: Vec<Expression>) -> Call {
    Call {
        schema: None,
        name: name.to_owned(),
        arguments,
        star: false,
        distinct: false,
        order: Vec::new(),
        filter: None,
    }
}
