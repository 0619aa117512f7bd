//! The functions and operators of `json` and `jsonb`.
//!
//! A family of functions. A plain machine.

use std::sync::Arc;

use super::Argument::{Any, Is};
use super::{Function, int, plain, set, text};
use crate::postgres::engine::catalog::row;
use crate::postgres::engine::execute::Stop;
use crate::postgres::engine::types::binary::type_of;
use crate::postgres::engine::types::datum::Datum;
use crate::postgres::engine::types::json::Json;
use crate::postgres::engine::types::numeric::Numeric;
use crate::postgres::engine::types::{BOOL, INT4, JSON, JSONB, Scalar, TEXT, Type, text as texts};
use crate::wire::Report;

const PATH: Type = Type::array(Scalar::Text);

pub(super) const FUNCTIONS: &[Function] = &[
    plain("->", &[Is(JSONB), Is(TEXT)], JSONB, |_, v| {
        Ok(same(&v[0], value(&v[0])?.get(text(&v[1]))))
    }),
    plain("->", &[Is(JSONB), Is(INT4)], JSONB, |_, v| {
        Ok(same(&v[0], value(&v[0])?.item(int(&v[1]))))
    }),
    plain("->", &[Is(JSON), Is(TEXT)], JSON, |_, v| {
        Ok(same(&v[0], value(&v[0])?.get(text(&v[1]))))
    }),
    plain("->", &[Is(JSON), Is(INT4)], JSON, |_, v| {
        Ok(same(&v[0], value(&v[0])?.item(int(&v[1]))))
    }),
    plain("->>", &[Is(JSONB), Is(TEXT)], TEXT, |_, v| {
        Ok(bare(value(&v[0])?.get(text(&v[1]))))
    }),
    plain("->>", &[Is(JSONB), Is(INT4)], TEXT, |_, v| {
        Ok(bare(value(&v[0])?.item(int(&v[1]))))
    }),
    plain("->>", &[Is(JSON), Is(TEXT)], TEXT, |_, v| {
        Ok(bare(value(&v[0])?.get(text(&v[1]))))
    }),
    plain("->>", &[Is(JSON), Is(INT4)], TEXT, |_, v| {
        Ok(bare(value(&v[0])?.item(int(&v[1]))))
    }),
    plain("#>", &[Is(JSONB), Is(PATH)], JSONB, |_, v| {
        Ok(same(&v[0], along(&*value(&v[0])?, &v[1])))
    }),
    plain("#>>", &[Is(JSONB), Is(PATH)], TEXT, |_, v| {
        Ok(bare(along(&*value(&v[0])?, &v[1])))
    }),
    plain("@>", &[Is(JSONB), Is(JSONB)], BOOL, |_, v| {
        Ok(Datum::Bool(value(&v[0])?.contains(&*value(&v[1])?)))
    }),
    plain("<@", &[Is(JSONB), Is(JSONB)], BOOL, |_, v| {
        Ok(Datum::Bool(value(&v[1])?.contains(&*value(&v[0])?)))
    }),
    plain("?", &[Is(JSONB), Is(TEXT)], BOOL, |_, v| {
        let json = value(&v[0])?;
        let wanted = Json::Text(text(&v[1]).to_owned());
        let listed = matches!(&*json, Json::Array(items) if items.contains(&wanted));
        Ok(Datum::Bool(listed || json.get(text(&v[1])).is_some()))
    }),
    plain("||", &[Is(JSONB), Is(JSONB)], JSONB, |_, v| {
        let joined = match (&*value(&v[0])?, &*value(&v[1])?) {
            (Json::Object(a), Json::Object(b)) => Json::object([a.clone(), b.clone()].concat()),
            (Json::Array(a), Json::Array(b)) => Json::Array([a.clone(), b.clone()].concat()),
            (Json::Array(a), b) => Json::Array([a.clone(), vec![b.clone()]].concat()),
            (a, Json::Array(b)) => Json::Array([vec![a.clone()], b.clone()].concat()),
            (a, b) => Json::Array(vec![a.clone(), b.clone()]),
        };
        Ok(Datum::Jsonb(Arc::new(joined)))
    }),
    plain("-", &[Is(JSONB), Is(TEXT)], JSONB, |_, v| {
        let left = match &*value(&v[0])? {
            Json::Object(entries) => {
                let kept = entries.iter().filter(|(key, _)| key != text(&v[1])).cloned();
                Json::Object(kept.collect())
            }
            other => other.clone(),
        };
        Ok(Datum::Jsonb(Arc::new(left)))
    }),
    plain("to_json", &[Any], JSON, |_, v| {
        Ok(Datum::Json(Arc::from(of(&v[0])?.to_string())))
    }),
    plain("to_jsonb", &[Any], JSONB, |_, v| Ok(Datum::Jsonb(Arc::new(of(&v[0])?)))),
    plain("jsonb_build_object", &[Any], JSONB, |_, v| {
        Ok(Datum::Jsonb(Arc::new(object(v)?)))
    })
    .variadic(),
    plain("json_build_object", &[Any], JSON, |_, v| {
        let Json::Object(_) = object(v)? else {
            return Ok(Datum::Null);
        };
        let pairs: Result<Vec<String>, Stop> = v
            .chunks(2)
            .map(|pair| {
                let key = crate::postgres::engine::types::json::quoted(&super::strings::shown(&pair[0]));
                Ok(format!("{key} : {}", of(&pair[1])?))
            })
            .collect();
        Ok(Datum::Json(Arc::from(format!("{{{}}}", pairs?.join(", ")))))
    })
    .variadic(),
    plain("jsonb_build_array", &[Any], JSONB, |_, v| {
        Ok(Datum::Jsonb(Arc::new(array(v)?)))
    })
    .variadic(),
    plain("json_build_array", &[Any], JSON, |_, v| {
        Ok(Datum::Json(Arc::from(array(v)?.to_string())))
    })
    .variadic(),
    plain("jsonb_typeof", &[Is(JSONB)], TEXT, |_, v| {
        Ok(Datum::text(kind(&*value(&v[0])?)))
    }),
    plain("json_typeof", &[Is(JSON)], TEXT, |_, v| {
        Ok(Datum::text(kind(&*value(&v[0])?)))
    }),
    plain("jsonb_array_length", &[Is(JSONB)], INT4, |_, v| length(&*value(&v[0])?)),
    plain("json_array_length", &[Is(JSON)], INT4, |_, v| length(&*value(&v[0])?)),
    set("jsonb_array_elements", &[Is(JSONB)], &[("value", JSONB)], |_, v| {
        Ok(elements(&*value(&v[0])?)?
            .iter()
            .map(|item| row(vec![same(&v[0], Some(item))]))
            .collect())
    }),
    set("jsonb_array_elements_text", &[Is(JSONB)], &[("value", TEXT)], |_, v| {
        Ok(elements(&*value(&v[0])?)?
            .iter()
            .map(|item| row(vec![bare(Some(item))]))
            .collect())
    }),
    set(
        "jsonb_object_keys",
        &[Is(JSONB)],
        &[("jsonb_object_keys", TEXT)],
        |_, v| match &*value(&v[0])? {
            Json::Object(entries) => Ok(entries.iter().map(|(key, _)| row(vec![Datum::text(key)])).collect()),
            _ => Err(Report::error("22023", "cannot call jsonb_object_keys on a scalar").into()),
        },
    ),
];

fn value(datum: &Datum) -> Result<Arc<Json>, Stop> {
    Ok(match datum {
        Datum::Jsonb(json) => Arc::clone(json),
        Datum::Json(text) => Arc::new(Json::parse(text).unwrap_or(Json::Null)),
        _ => Arc::new(Json::Null),
    })
}

/// A part of a document in the type of the document.
fn same(whole: &Datum, part: Option<&Json>) -> Datum {
    match (whole, part) {
        (_, None) => Datum::Null,
        (Datum::Json(_), Some(part)) => Datum::Json(Arc::from(part.to_string())),
        (_, Some(part)) => Datum::Jsonb(Arc::new(part.clone())),
    }
}

fn bare(part: Option<&Json>) -> Datum {
    part.and_then(Json::bare).map_or(Datum::Null, Datum::text)
}

fn along<'a>(json: &'a Json, path: &Datum) -> Option<&'a Json> {
    let Datum::Array(path) = path else { return None };
    path.items.iter().try_fold(json, |json, step| match json {
        Json::Array(_) => text(step).parse().ok().and_then(|at| json.item(at)),
        _ => json.get(text(step)),
    })
}

/// A value of SQL as JSON.
pub(super) fn of(value: &Datum) -> Result<Json, Stop> {
    Ok(match value {
        Datum::Null => Json::Null,
        Datum::Bool(flag) => Json::Bool(*flag),
        Datum::Jsonb(json) => (**json).clone(),
        Datum::Json(text) => Json::parse(text).unwrap_or(Json::Null),
        Datum::Numeric(number) => Json::Number(*number),
        Datum::Float4(_) | Datum::Float8(_) => {
            let shown = super::strings::shown(value);
            Numeric::parse(&shown).map_or(Json::Text(shown), Json::Number)
        }
        Datum::Array(array) => {
            let items: Result<Vec<Json>, Stop> = array.items.iter().map(of).collect();
            Json::Array(items?)
        }
        Datum::Record(_) => return Err(Report::error("0A000", "gdbpool-sim does not support records in JSON").into()),
        Datum::Timestamp(_) => {
            return Err(Report::error("0A000", "gdbpool-sim does not support timestamps in JSON").into());
        }
        other => match other.as_i64() {
            Some(number) => Json::Number(Numeric::from_i64(number)),
            None => Json::Text(texts::write(other, type_of(other).unwrap_or(TEXT))),
        },
    })
}

fn object(values: &[Datum]) -> Result<Json, Stop> {
    if !values.len().is_multiple_of(2) {
        let report = Report::error("22023", "argument list must have even number of elements");
        return Err(report
            .hint("The arguments of jsonb_build_object() must consist of alternating keys and values.")
            .into());
    }
    let entries: Result<Vec<(String, Json)>, Stop> = values
        .chunks(2)
        .map(|pair| {
            if pair[0].is_null() {
                return Err(Report::error("22004", "null value not allowed for object key").into());
            }
            Ok((super::strings::shown(&pair[0]), of(&pair[1])?))
        })
        .collect();
    Ok(Json::object(entries?))
}

fn array(values: &[Datum]) -> Result<Json, Stop> {
    let items: Result<Vec<Json>, Stop> = values.iter().map(of).collect();
    items.map(Json::Array)
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::Text(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

fn elements(json: &Json) -> Result<&[Json], Stop> {
    match json {
        Json::Array(items) => Ok(items),
        Json::Object(_) => Err(Report::error("22023", "cannot extract elements from an object").into()),
        _ => Err(Report::error("22023", "cannot extract elements from a scalar").into()),
    }
}

fn length(json: &Json) -> Result<Datum, Stop> {
    match json {
        Json::Array(items) => Ok(Datum::Int4(i32::try_from(items.len()).unwrap_or(i32::MAX))),
        _ => Err(Report::error("22023", "cannot get array length of a non-array").into()),
    }
}
