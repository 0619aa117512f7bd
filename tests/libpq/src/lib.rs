//! libpq as a judge: what it makes of a connection string, its defaults, and the password it would send.
//!
//! For tests only. The only place with `unsafe`: each block says why it holds. Texts are bytes, as in C.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use libloading::Library;

/// A loaded libpq.
#[derive(Debug)]
pub struct Libpq {
    library: Library,
}

/// One line of libpq's table of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The keyword.
    pub key: String,
    /// The variable that stands in for it.
    pub variable: Option<String>,
    /// What stands in for both.
    pub compiled: Option<Vec<u8>>,
    /// The value found, if any.
    pub value: Option<Vec<u8>>,
}

/// How a connection attempt began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// False if libpq gave up at once, as it does for a value it cannot use.
    pub begun: bool,
    /// The password for the first host; empty if there is none.
    pub password: Vec<u8>,
    /// What libpq says.
    pub message: String,
}

/// libpq's `PQconninfoOption`.
#[repr(C)]
struct Row {
    keyword: *mut c_char,
    envvar: *mut c_char,
    compiled: *mut c_char,
    val: *mut c_char,
    label: *mut c_char,
    dispchar: *mut c_char,
    dispsize: c_int,
}

/// `CONNECTION_BAD`.
const BAD: c_int = 1;

impl Libpq {
    /// Loads the library at `path`; a bare name is looked for where the system looks.
    ///
    /// # Errors
    /// What the loader says.
    pub fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: libpq has no initialisers that do more than register tables.
        let library = unsafe { Library::new(path) };
        library
            .map(|library| Self { library })
            .map_err(|error| error.to_string())
    }

    /// Its version, such as 180004.
    #[must_use]
    pub fn version(&self) -> i32 {
        let version = self.function::<extern "C" fn() -> c_int>(c"PQlibVersion");
        version()
    }

    /// What a connection string says, without any default; or libpq's message.
    ///
    /// # Errors
    /// libpq refuses it.
    ///
    /// # Panics
    /// For a text with a NUL in it.
    pub fn parse(&self, text: &str) -> Result<Vec<Setting>, String> {
        type Parse = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> *mut Row;
        let parse = self.function::<Parse>(c"PQconninfoParse");
        let free = self.function::<unsafe extern "C" fn(*mut c_void)>(c"PQfreemem");
        let text = CString::new(text).expect("a text without NUL");
        let mut message = ptr::null_mut();
        // SAFETY: a C string that outlives the call, and a place for one pointer.
        let rows = unsafe { parse(text.as_ptr(), &raw mut message) };
        if rows.is_null() {
            let said = bytes(message).unwrap_or_default();
            // SAFETY: the message is libpq's to free, and read already.
            unsafe { free(message.cast()) };
            return Err(String::from_utf8_lossy(&said).trim_end().to_owned());
        }
        Ok(self.table(rows))
    }

    /// What stands in for everything, from this process's environment, service file and libpq itself.
    ///
    /// # Panics
    /// Without memory.
    #[must_use]
    pub fn defaults(&self) -> Vec<Setting> {
        let defaults = self.function::<extern "C" fn() -> *mut Row>(c"PQconndefaults");
        let rows = defaults();
        assert!(!rows.is_null(), "libpq has no memory");
        self.table(rows)
    }

    /// Begins to connect, as far as it goes without waiting, and ends it.
    ///
    /// # Panics
    /// For a text with a NUL in it, and without memory.
    #[must_use]
    pub fn start(&self, text: &str) -> Start {
        type Ask<T> = unsafe extern "C" fn(*mut c_void) -> T;
        let start = self.function::<unsafe extern "C" fn(*const c_char) -> *mut c_void>(c"PQconnectStart");
        let status = self.function::<Ask<c_int>>(c"PQstatus");
        let password = self.function::<Ask<*mut c_char>>(c"PQpass");
        let message = self.function::<Ask<*mut c_char>>(c"PQerrorMessage");
        let finish = self.function::<Ask<()>>(c"PQfinish");
        let text = CString::new(text).expect("a text without NUL");
        // SAFETY: a C string that outlives the call.
        let connection = unsafe { start(text.as_ptr()) };
        assert!(!connection.is_null(), "libpq has no memory");
        // SAFETY: the connection is there until `finish`, and what it lends is copied before.
        let (status, password, message) = unsafe { (status(connection), password(connection), message(connection)) };
        let started = Start {
            begun: status != BAD,
            password: bytes(password).unwrap_or_default(),
            message: String::from_utf8_lossy(&bytes(message).unwrap_or_default())
                .trim_end()
                .to_owned(),
        };
        // SAFETY: the only end of this connection.
        unsafe { finish(connection) };
        started
    }

    /// Copies a table and frees it.
    fn table(&self, rows: *mut Row) -> Vec<Setting> {
        let free = self.function::<unsafe extern "C" fn(*mut Row)>(c"PQconninfoFree");
        let mut settings = Vec::new();
        let mut row = rows;
        loop {
            // SAFETY: the table ends with a row whose keyword is null, and is not read beyond it.
            let read = unsafe { &*row };
            let Some(key) = bytes(read.keyword) else { break };
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            settings.push(Setting {
                key: text(key),
                variable: bytes(read.envvar).map(text),
                compiled: bytes(read.compiled),
                value: bytes(read.val),
            });
            // SAFETY: as above: there is a row behind each that has a keyword.
            row = unsafe { row.add(1) };
        }
        // SAFETY: libpq's own table, not used after this.
        unsafe { free(rows) };
        settings
    }

    /// A function of the library. `F` is its type in libpq-fe.h.
    fn function<F: Copy>(&self, name: &CStr) -> F {
        // SAFETY: the types given in this file are those of libpq-fe.h, which are part of its stable interface (libpq.so.5);
        // the pointer is used only while `self` keeps the library loaded.
        let symbol = unsafe { self.library.get::<F>(name) };
        *symbol.unwrap_or_else(|error| panic!("{name:?} is not in this libpq: {error}"))
    }
}

/// A copy of a C string, if there is one.
fn bytes(text: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: every text that libpq hands out is null or ends with a NUL.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
}
