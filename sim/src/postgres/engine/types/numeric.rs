//! `numeric`: decimal numbers of up to 38 digits.
//!
//! PostgreSQL's go to 131,072 digits; what does not fit here is refused, never rounded in silence. A plain machine.

use std::cmp::Ordering;
use std::fmt;

/// A decimal number, or not a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numeric {
    /// `None` is NaN.
    digits: Option<i128>,
    /// Digits behind the point.
    scale: u32,
}

impl Numeric {
    pub(crate) const NAN: Self = Self { digits: None, scale: 0 };

    pub(crate) fn new(digits: i128, scale: u32) -> Self {
        Self {
            digits: Some(digits),
            scale,
        }
    }

    pub(crate) fn from_i64(value: i64) -> Self {
        Self::new(i128::from(value), 0)
    }

    /// From what PostgreSQL shows of a float, which has at most 15 (float8) or 6 (float4) digits.
    pub(crate) fn from_f64(value: f64, significant: usize) -> Option<Self> {
        if value.is_nan() {
            return Some(Self::NAN);
        }
        if !value.is_finite() {
            return None;
        }
        let text = format!("{value:.*e}", significant - 1);
        Self::parse(&text).map(Self::trimmed)
    }

    /// Reads digits with an optional sign, point and exponent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("nan") {
            return Some(Self::NAN);
        }
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let mut digits: i128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            digits = digits.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
        }
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        let (digits, scale) = if scale < 0 {
            (digits.checked_mul(power(scale.unsigned_abs())?)?, 0)
        } else {
            (digits, scale.unsigned_abs())
        };
        Some(Self::new(if negative { -digits } else { digits }, scale))
    }

    pub(crate) fn scale(self) -> u32 {
        self.scale
    }

    pub(crate) fn digits(self) -> Option<i128> {
        self.digits
    }

    pub(crate) fn is_nan(self) -> bool {
        self.digits.is_none()
    }

    pub(crate) fn is_zero(self) -> bool {
        self.digits == Some(0)
    }

    pub(crate) fn is_negative(self) -> bool {
        self.digits.is_some_and(|digits| digits < 0)
    }

    pub(crate) fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Rounded half away from zero to whole numbers.
    pub(crate) fn to_i64(self) -> Option<i64> {
        self.rounded(0)?.digits.and_then(|digits| i64::try_from(digits).ok())
    }

    /// With `scale` digits behind the point, rounded half away from zero; `None` if it does not fit.
    pub(crate) fn rounded(self, scale: u32) -> Option<Self> {
        let Some(digits) = self.digits else {
            return Some(self);
        };
        if scale >= self.scale {
            let digits = digits.checked_mul(power(scale - self.scale)?)?;
            return Some(Self::new(digits, scale));
        }
        let Some(unit) = power(self.scale - scale) else {
            return Some(Self::new(0, scale));
        };
        let (quotient, rest) = (digits / unit, digits % unit);
        let up = rest.unsigned_abs() * 2 >= unit.unsigned_abs();
        let quotient = quotient + if up { digits.signum() } else { 0 };
        Some(Self::new(quotient, scale))
    }

    /// Towards zero.
    pub(crate) fn truncated(self, scale: u32) -> Self {
        match (self.digits, self.scale.checked_sub(scale).and_then(power)) {
            (Some(digits), Some(unit)) => Self::new(digits / unit, scale),
            _ => self.rounded(scale).unwrap_or(self),
        }
    }

    /// Without zeros at the end of the fraction.
    pub(crate) fn trimmed(mut self) -> Self {
        while let Some(digits) = self.digits
            && self.scale > 0
            && digits % 10 == 0
        {
            self = Self::new(digits / 10, self.scale - 1);
        }
        self
    }

    /// How many digits stand before the point.
    pub(crate) fn whole_digits(self) -> usize {
        let whole = self.digits.unwrap_or(0) / power(self.scale).unwrap_or(i128::MAX);
        if whole == 0 {
            0
        } else {
            whole.unsigned_abs().to_string().len()
        }
    }

    pub(crate) fn negated(self) -> Self {
        Self {
            digits: self.digits.map(|digits| -digits),
            scale: self.scale,
        }
    }

    pub(crate) fn add(self, other: Self) -> Option<Self> {
        self.aligned(other, i128::checked_add)
    }

    pub(crate) fn subtract(self, other: Self) -> Option<Self> {
        self.aligned(other, i128::checked_sub)
    }

    /// The remainder, with the sign of `self`; `other` is not zero.
    pub(crate) fn remainder(self, other: Self) -> Option<Self> {
        self.aligned(other, i128::checked_rem)
    }

    pub(crate) fn multiply(self, other: Self) -> Option<Self> {
        let (Some(a), Some(b)) = (self.digits, other.digits) else {
            return Some(Self::NAN);
        };
        Some(Self::new(a.checked_mul(b)?, self.scale + other.scale))
    }

    /// With the number of digits PostgreSQL gives a quotient; `other` is not zero.
    pub(crate) fn divide(self, other: Self) -> Option<Self> {
        let (Some(a), Some(b)) = (self.digits, other.digits) else {
            return Some(Self::NAN);
        };
        let ((weight_a, first_a), (weight_b, first_b)) = (self.weight(), other.weight());
        let weight = weight_a - weight_b - i32::from(first_a <= first_b);
        let wanted = (16 - weight * 4).max(0).unsigned_abs();
        let scale = wanted.max(self.scale).max(other.scale);
        // a/10^sa / (b/10^sb) to `scale` digits, and one more for rounding.
        let up = i64::from(scale) + 1 + i64::from(other.scale) - i64::from(self.scale);
        let (a, b) = if up >= 0 {
            (a.checked_mul(power(u32::try_from(up).ok()?)?)?, b)
        } else {
            (a, b.checked_mul(power(u32::try_from(-up).ok()?)?)?)
        };
        Self::new(a / b, scale + 1).rounded(scale)
    }

    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let (Some(a), Some(b)) = (self.digits, other.digits) else {
            return self.is_nan().cmp(&other.is_nan());
        };
        if a.signum() != b.signum() {
            return a.cmp(&b);
        }
        let scale = self.scale.max(other.scale);
        let raise = |digits: i128, from: u32| power(scale - from).and_then(|unit| digits.checked_mul(unit));
        match (raise(a, self.scale), raise(b, other.scale)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // The one that overflows is the larger in size.
            (None, Some(_)) => a.signum().cmp(&0),
            (Some(_), None) => 0.cmp(&b.signum()),
            (None, None) => self.to_f64().partial_cmp(&other.to_f64()).unwrap_or(Ordering::Equal),
        }
    }

    fn aligned(self, other: Self, apply: impl Fn(i128, i128) -> Option<i128>) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let (Some(a), Some(b)) = (self.rounded(scale)?.digits, other.rounded(scale)?.digits) else {
            return Some(Self::NAN);
        };
        Some(Self::new(apply(a, b)?, scale))
    }

    /// The weight of the first digit to base 10,000, and that digit.
    fn weight(self) -> (i32, i128) {
        let size = self.digits.unwrap_or(0).unsigned_abs();
        if size == 0 {
            return (0, 0);
        }
        let length = i32::try_from(size.to_string().len()).unwrap_or(0);
        // The place of the first decimal digit, counted from the point.
        let place = length - 1 - self.scale.cast_signed();
        let weight = place.div_euclid(4);
        let drop = length - 1 - place.rem_euclid(4);
        let size = size.cast_signed();
        let first = match drop {
            0.. => size / power(drop.unsigned_abs()).unwrap_or(1),
            _ => size * power(drop.unsigned_abs()).unwrap_or(1),
        };
        (weight, first)
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(digits) = self.digits else {
            return f.write_str("NaN");
        };
        let sign = if digits < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = text.split_at(text.len() - scale);
        if scale == 0 {
            write!(f, "{sign}{whole}")
        } else {
            write!(f, "{sign}{whole}.{fraction}")
        }
    }
}

fn power(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Numeric {
        Numeric::parse(text).expect("a number")
    }

    #[test]
    fn quotients_have_the_digits_of_postgresql() {
        for (a, b, quotient) in [
            ("1", "3", "0.33333333333333333333"),
            ("10", "4", "2.5000000000000000"),
            ("100000", "7", "14285.714285714286"),
            ("1.5", "0.5", "3.0000000000000000"),
            ("-7", "2", "-3.5000000000000000"),
        ] {
            let found = number(a).divide(number(b)).expect("a quotient").to_string();
            assert_eq!(found, quotient, "{a} / {b}");
        }
    }

    #[test]
    fn rounding_is_away_from_zero_and_texts_come_back() {
        assert_eq!(number("2.5").to_i64(), Some(3));
        assert_eq!(number("-2.5").to_i64(), Some(-3));
        assert_eq!(number("1e3").to_string(), "1000");
        assert_eq!(number("-0.050").to_string(), "-0.050");
        assert_eq!(number("1.10").compare(&number("1.1")), Ordering::Equal);
        assert!(Numeric::parse("1.2.3").is_none());
    }
}
