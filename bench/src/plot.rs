//! Grouped bars as SVG: one group for each scenario, one bar for each proxy.

use std::fmt::Write as _;

use crate::contender::Proxy;

/// One group of bars.
#[derive(Debug)]
pub(crate) struct Group {
    /// Words below it.
    pub(crate) title: String,
    /// Its bars; a proxy that was not measured has none.
    pub(crate) bars: Vec<(Proxy, f64)>,
    /// The figure as people read it, above each bar.
    pub(crate) shown: Vec<String>,
}

const BAR: f64 = 34.0;
const GAP: f64 = 34.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 64.0;
const HEIGHT: f64 = 240.0;

fn colour(proxy: Proxy) -> &'static str {
    match proxy {
        Proxy::Direct => "#9aa0a6",
        Proxy::Meshd => "#1b7f4d",
        Proxy::Envoy => "#a13bb5",
        Proxy::Haproxy => "#2f6fb3",
        Proxy::Nginx => "#c8860d",
    }
}

/// A whole picture. Each group is scaled by itself, for the groups have nothing to do with each other.
pub(crate) fn bars(title: &str, groups: &[Group]) -> String {
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let width = (2.0 * LEFT + BAR * number(bars) + GAP * number(groups.len())).max(620.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} 350\" width=\"{width:.0}\" height=\"350\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" fill=\"#202124\">{}</text>\n",
        escaped(title)
    );
    legend(&mut text, groups);
    let mut x = LEFT + GAP / 2.0;
    for group in groups {
        x = one(&mut text, group, x) + GAP;
    }
    let base = TOP + HEIGHT;
    let _infallible = writeln!(
        text,
        "<line x1=\"{LEFT}\" y1=\"{base}\" x2=\"{:.0}\" y2=\"{base}\" stroke=\"#5f6368\"/>\n</svg>",
        width - LEFT
    );
    text
}

fn legend(text: &mut String, groups: &[Group]) {
    let mut x = LEFT;
    for proxy in Proxy::ALL {
        let used = |group: &Group| group.bars.iter().any(|(known, _)| *known == proxy);
        if !groups.iter().any(used) {
            continue;
        }
        let _infallible = writeln!(
            text,
            "<rect x=\"{x}\" y=\"36\" width=\"11\" height=\"11\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"46\" fill=\"#202124\">{}</text>",
            colour(proxy),
            x + 16.0,
            proxy.title()
        );
        x += 90.0;
    }
}

/// One group, each scaled by itself; returns where it ends.
fn one(text: &mut String, group: &Group, start: f64) -> f64 {
    let most = group
        .bars
        .iter()
        .map(|(_, value)| *value)
        .fold(0.0, f64::max);
    let mut x = start;
    for ((proxy, value), shown) in group.bars.iter().zip(&group.shown) {
        let height = if most > 0.0 {
            value / most * (HEIGHT - 24.0)
        } else {
            0.0
        };
        let y = TOP + HEIGHT - height;
        let _infallible = writeln!(
            text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\" fill=\"#202124\">{}</text>",
            BAR - 4.0,
            colour(*proxy),
            x + BAR / 2.0 - 2.0,
            y - 4.0,
            escaped(shown)
        );
        x += BAR;
    }
    let _infallible = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#202124\">{}</text>",
        f64::midpoint(start, x) - 2.0,
        TOP + HEIGHT + 18.0,
        escaped(&group.title)
    );
    x
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_for_each_and_words_escaped() {
        let group = Group {
            title: "a < b".to_owned(),
            bars: vec![(Proxy::Meshd, 10.0), (Proxy::Envoy, 40.0)],
            shown: vec!["10.0".to_owned(), "40.0".to_owned()],
        };
        let text = bars("CPU", &[group]);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert!(text.contains("a &lt; b") && text.contains(">Envoy<") && !text.contains(">nginx<"));
        assert!(text.contains("height=\"54.0\"") && text.contains("height=\"216.0\""));
    }
}
