use super::super::{BREAK, Dialect, escape, render};
use super::ALL;

/// Renders, with the zero-width space made visible.
fn seen(dialect: Dialect, markdown: &str) -> String {
    render(markdown, dialect).replace(BREAK, "¦")
}

fn typed(dialect: Dialect, text: &str) -> String {
    escape(text, dialect).replace(BREAK, "¦")
}

const INLINE: &str =
    "# Head *x*\n\na **bold** `c` ``a`b`` ~~s~~ wo**r**d 🚀  \n[t](http://a.b/c_d) ![i](https://i.j/k.png) <a@b.c>";
const BLOCKS: &str = "- one\n  - two\n- [x] done\n\n7. a\n8. b\n\n> q\n>\n> > deep\n\n```rust\nfn <a> ``` x\n```\n\n| a | b |\n|---|---|\n| 12 | *c* |\n\n---\n\nend";

#[test]
fn plain_text_is_readable() {
    let inline = "Head x\n\na bold c a`b s word 🚀\nt (http://a.b/c_d) i (https://i.j/k.png) a@b.c";
    assert_eq!(seen(Dialect::Plain, INLINE), inline);
    let blocks = "- one\n  - two\n- [x] done\n\n7. a\n8. b\n\n> q\n>\n> > deep\n\nfn <a> ``` x\n\na  | b\n---|--\n12 | c\n\n---\n\nend";
    assert_eq!(seen(Dialect::Plain, BLOCKS), blocks);
}

#[test]
fn slack_gets_its_marks() {
    let inline = "*Head _x_*\n\na *bold* `c` a¦`¦b ~s~ wo¦*r*¦d 🚀\n<http://a.b/c_d|t> <https://i.j/k.png|i> <mailto:a@b.c|a@b.c>";
    assert_eq!(seen(Dialect::SlackMrkdwn, INLINE), inline);
    let blocks = "• one\n  • two\n• ☑ done\n\n7. a\n8. b\n\n> q\n>\n> > deep\n\n```\nfn &lt;a&gt; ``¦` x\n```\n\n```\na  | b\n---|--\n12 | c\n```\n\n──────────\n\nend";
    assert_eq!(seen(Dialect::SlackMrkdwn, BLOCKS), blocks);
    assert_eq!(seen(Dialect::SlackMrkdwn, "**a\nb** &amp; <b>"), "*a*\n*b* &amp; &lt;b&gt;");
    assert_eq!(typed(Dialect::SlackMrkdwn, "*x* a_b <!here> :no: 12:30"), "*¦x¦* a_b &lt;!here&gt; :¦no: 12:30");
    assert_eq!(typed(Dialect::SlackMrkdwn, "> q https://a.b/_c_d_e"), "¦&gt; q https://a.b/_c_d_e");
}

#[test]
fn telegram_gets_its_tags() {
    let inline = "<b>Head <i>x</i></b>\n\na <b>bold</b> <code>c</code> <code>a`b</code> <s>s</s> wo<b>r</b>d 🚀\n<a href=\"http://a.b/c_d\">t</a> <a href=\"https://i.j/k.png\">i</a> <a href=\"mailto:a@b.c\">a@b.c</a>";
    assert_eq!(seen(Dialect::TelegramHtml, INLINE), inline);
    let blocks = "• one\n  • two\n• ☑ done\n\n7. a\n8. b\n\n<blockquote>q\n\n&gt; deep</blockquote>\n\n<pre><code class=\"language-rust\">fn &lt;a&gt; ``` x</code></pre>\n\n<pre>a  | b\n---|--\n12 | c</pre>\n\n──────────\n\nend";
    assert_eq!(seen(Dialect::TelegramHtml, BLOCKS), blocks);
    assert_eq!(seen(Dialect::TelegramHtml, "> - a\n>   - b"), "<blockquote>• a\n  • b</blockquote>");
    assert_eq!(seen(Dialect::TelegramHtml, "- > a\n  > b"), "• <blockquote>a\n  b</blockquote>");
    let link = "<a href=\"https://a.b/@c\">https://a.b/@¦c</a> @¦d e@f";
    assert_eq!(typed(Dialect::TelegramHtml, "https://a.b/@c @d e@f"), link);
}

#[test]
fn pushover_gets_its_few_tags() {
    let inline = "<b>Head <i>x</i></b>\n\na <b>bold</b> c a`b s wo<b>r</b>d 🚀\n<a href=\"http://a.b/c_d\">t</a> <a href=\"https://i.j/k.png\">i</a> <a href=\"mailto:a@b.c\">a@b.c</a>";
    assert_eq!(seen(Dialect::PushoverHtml, INLINE), inline);
    let blocks = "• one\n  • two\n• ☑ done\n\n7. a\n8. b\n\n&gt; q\n&gt;\n&gt; &gt; deep\n\nfn &lt;a&gt; ``` x\n\na  | b\n---|--\n12 | c\n\n──────────\n\nend";
    assert_eq!(seen(Dialect::PushoverHtml, BLOCKS), blocks);
}

#[test]
fn matrix_and_mail_get_html() {
    let inline = "<h1>Head <em>x</em></h1>\n<p>a <strong>bold</strong> <code>c</code> <code>a`b</code> <del>s</del> wo<strong>r</strong>d 🚀<br><a href=\"http://a.b/c_d\">t</a> <a href=\"https://i.j/k.png\">i</a> <a href=\"mailto:a@b.c\">a@b.c</a></p>";
    let blocks = "<ul>\n<li>one<ul>\n<li>two</li>\n</ul>\n</li>\n<li>☑ done</li>\n</ul>\n<ol start=\"7\">\n<li>a</li>\n<li>b</li>\n</ol>\n<blockquote><p>q</p>\n<blockquote><p>deep</p>\n</blockquote>\n</blockquote>\n<pre><code class=\"language-rust\">fn &lt;a&gt; ``` x\n</code></pre>\n<table>\n<thead><tr><th>a</th><th>b</th></tr></thead>\n<tr><td>12</td><td><em>c</em></td></tr>\n</table>\n<hr>\n<p>end</p>";
    assert_eq!(seen(Dialect::MatrixHtml, INLINE), inline);
    assert_eq!(seen(Dialect::MatrixHtml, BLOCKS), blocks);
    assert_eq!(seen(Dialect::EmailHtml, INLINE), inline);
    assert_eq!(seen(Dialect::EmailHtml, BLOCKS), blocks.replace(" class=\"language-rust\"", ""));
    assert_eq!(typed(Dialect::EmailHtml, "a  b\n <c> \"d\" @room"), "a\u{A0} b<br>\u{A0}&lt;c&gt; &quot;d&quot; @room");
    assert_eq!(typed(Dialect::MatrixHtml, "@room"), "@¦room");
    assert_eq!(seen(Dialect::EmailHtml, "<script>x</script>"), "<p>&lt;script&gt;x&lt;/script&gt;</p>");
}

#[test]
fn whatsapp_and_google_chat_get_their_marks() {
    let inline = "*Head _x_*\n\na *bold* `c` a¦`¦b ~s~ wo¦*r*¦d 🚀\n";
    let links = "t (http://a.b/c_d) i (https://i.j/k.png) a@b.c";
    assert_eq!(seen(Dialect::WhatsApp, INLINE), format!("{inline}{links}"));
    let links = "<http://a.b/c_d|t> <https://i.j/k.png|i> a@b.c";
    assert_eq!(seen(Dialect::GoogleChat, INLINE), format!("{inline}{links}"));
    let blocks = "- one\n  - two\n- ☑ done\n\n7. a\n8. b\n\n> q\n>\n> > deep\n\n```\nfn <a> ``¦` x\n```\n\n```\na  | b\n---|--\n12 | c\n```\n\n──────────\n\nend";
    assert_eq!(seen(Dialect::WhatsApp, BLOCKS), blocks);
    assert_eq!(seen(Dialect::GoogleChat, BLOCKS), blocks.replace("  - two", "    - two"));
    assert_eq!(typed(Dialect::GoogleChat, "<users/all> - x\n- y\n1. z"), "<¦users/all> - x\n¦- y\n¦1. z");
    assert_eq!(seen(Dialect::GoogleChat, "[a > b](http://c.d)"), "a > b (http://c.d)");
    assert_eq!(seen(Dialect::GoogleChat, "`<users/all>`"), "`<¦users/all>`");
}

#[test]
fn mattermost_and_discord_get_markdown() {
    let text = "# Head *x*\n\na **bold** `c` ``a`b`` ~~s~~ wo**r**d 🚀\n[t](http://a.b/c_d) [i](https://i.j/k.png) ";
    assert_eq!(seen(Dialect::Mattermost, INLINE), format!("{text}[a@b.c](mailto:a@b.c)"));
    assert_eq!(seen(Dialect::Discord, INLINE), format!("{text}a@b.c"));
    let lists = "- one\n  - two\n- ☑ done\n\n7. a\n8. b\n\n> q\n>\n> > deep\n\n";
    let discord = "```rust\nfn <a> ``¦` x\n```\n\n```\na  | b\n---|--\n12 | c\n```\n\n──────────\n\nend";
    assert_eq!(seen(Dialect::Discord, BLOCKS), format!("{lists}{discord}"));
    let mattermost = "````rust\nfn <a> ``` x\n````\n\n| a | b |\n| --- | --- |\n| 12 | c |\n\n***\n\nend";
    assert_eq!(seen(Dialect::Mattermost, BLOCKS), format!("{}{mattermost}", lists.replace('☑', "[x]")));
    assert_eq!(seen(Dialect::Discord, "#### deep\n[a]b](http://c.d/(e))"), "**deep**\n\n\\[a]b](http://c.d/(e))");
    assert_eq!(typed(Dialect::Mattermost, "# a_b @all &lt; <x>"), "\\# a\\_b @¦all &¦lt; <¦x>");
    assert_eq!(typed(Dialect::Discord, "https://a.b/@everyone @everyone"), "https://a.b/%40everyone @¦everyone");
}

#[test]
fn a_name_in_an_address_for_mail_is_disarmed() {
    assert_eq!(seen(Dialect::Discord, "<a@here> <a_b@c.d>"), "a@¦here a\\_b@c.d");
    assert_eq!(seen(Dialect::Mattermost, "<a@here>"), "[a@¦here](mailto:a%40here)");
}

#[test]
fn a_name_that_two_pieces_make_together_is_disarmed() {
    assert_eq!(seen(Dialect::Discord, "<https://a.b/@her>e"), "https://a.b/%40here");
    assert_eq!(seen(Dialect::Discord, "@h<ere@a.b>"), "@¦here@a.b");
    assert_eq!(seen(Dialect::MatrixHtml, "@ro*om*"), "<p>@¦ro<em>om</em></p>");
    assert_eq!(typed(Dialect::Discord, "meet me @h"), "meet me @h");
}

#[test]
fn a_mention_in_code_is_disarmed_in_either_case() {
    assert_eq!(seen(Dialect::GoogleChat, "`<users/all>` `<Users/1>`"), "`<¦users/all>` `<¦Users/1>`");
}

#[test]
fn teams_gets_what_a_card_takes() {
    let inline = "**Head *x***\n\na **bold** c a\\`b s wo**r**d 🚀\n\n[t](http://a.b/c_d) [i](https://i.j/k.png) [a@b.c](mailto:a@b.c)";
    assert_eq!(seen(Dialect::TeamsCard, INLINE), inline);
    let blocks = "- one\n  - two\n- ☑ done\n\n7. a\n8. b\n\n> q\n>\n> > deep\n\nfn \\<a> \\`\\`\\` x\n\na | b\n\n12 | c\n\n──────────\n\nend";
    assert_eq!(seen(Dialect::TeamsCard, BLOCKS), blocks);
    assert_eq!(typed(Dialect::TeamsCard, "a\n*b* {{DATE(x)}}"), "a\n\n\\*b\\* {¦{DATE(x)}}");
}

#[test]
fn only_known_schemes_become_links() {
    for target in ["javascript:x", "data:text/html,x", "vbscript:x", "/path", "JavaScript&#58;x", "tg://user?id=1"] {
        for dialect in ALL {
            let out = render(&format!("[text]({target})"), dialect);
            assert!(!out.contains("href") && !out.contains("](") && !out.contains("|text"), "{dialect:?}: {out}");
            assert!(out.contains("text (") || out.contains("text \\("), "{dialect:?}: {out}");
        }
    }
    assert_eq!(seen(Dialect::SlackMrkdwn, "[a](HTTPS://x.y/|b)"), "<HTTPS://x.y/%7Cb|a>");
    assert_eq!(seen(Dialect::Mattermost, "\\![a](http://b.c)"), "!¦[a](http://b.c)");
    assert_eq!(seen(Dialect::EmailHtml, "[a](tel:+123)"), "<p><a href=\"tel:+123\">a</a></p>");
}
