//! Channel binding: who stands in the middle with a certificate of his own learns nothing and opens nothing.

use super::pki::Pki;
use super::relay::man_in_the_middle;
use super::world::{SECRET, dsn, is_encrypted, on_each_server};

#[test]
fn required_it_works_over_tls_with_scram_only() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            for (rest, words) in [
                ("user=app sslmode=require channel_binding=require", None),
                ("user=app sslmode=prefer channel_binding=prefer", None),
                ("user=app sslmode=require channel_binding=disable", None),
                // In the clear, with another method, and with none.
                (
                    "user=app sslmode=disable channel_binding=require",
                    Some("channel binding"),
                ),
                (
                    "user=clear sslmode=require channel_binding=require",
                    Some("channel binding"),
                ),
                (
                    "user=postgres sslmode=require channel_binding=require",
                    Some("channel binding"),
                ),
            ] {
                let rest = format!("{rest} password={SECRET}");
                let result = is_encrypted(&runtime, &dsn("localhost", cluster.port(), &rest)).await;
                match words {
                    None => assert_eq!(result, Ok(true), "{rest}"),
                    Some(words) => {
                        let text = result.expect_err("refused");
                        assert!(text.contains(words) && !text.contains(SECRET), "{rest}: {text}");
                    }
                }
            }
        })
    });
}

/// Without roots the client cannot tell him from the server by his certificate. With channel binding it can; where that is
/// switched off he is let through, so the test is one.
#[test]
fn a_man_in_the_middle_is_found_out() {
    on_each_server(|runtime, cluster, _| {
        let port = man_in_the_middle(cluster.port());
        Box::pin(async move {
            for (rest, is_in) in [
                ("channel_binding=require", false),
                ("channel_binding=prefer", false),
                ("channel_binding=disable", true),
            ] {
                let rest = format!("user=app password={SECRET} sslmode=require {rest}");
                let result = is_encrypted(&runtime, &dsn("localhost", port, &rest)).await;
                assert_eq!(result.is_ok(), is_in, "{rest}: {result:?}");
                if let Err(text) = result {
                    assert!(text.contains("SCRAM channel binding check failed"), "{text}");
                }
            }
            // By his certificate he is found out before.
            let root = Pki::get().of("ca.crt");
            let rest =
                format!("user=app password={SECRET} sslmode=verify-full sslrootcert={root} channel_binding=disable");
            let text = is_encrypted(&runtime, &dsn("localhost", port, &rest))
                .await
                .expect_err("refused");
            assert!(text.contains("UnknownIssuer"), "{text}");
        })
    });
}
