//! A document with other strings in the places of some.

use super::{Document, NodeKind, escape::put};

impl Document {
    /// The content of a string; `None` where the node is something else.
    pub(in crate::request) fn string_at(&self, node: u32) -> Option<&[u8]> {
        let node = self.node(node);
        matches!(node.kind, NodeKind::Plain | NodeKind::Escaped).then(|| self.string(node.span))
    }

    /// The text of the same document with these strings in the places of those nodes, which are sorted.
    pub(in crate::request) fn with_strings(&self, changes: &[(u32, String)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len());
        self.exchange(super::ROOT, changes, &mut out);
        out
    }

    /// It goes no deeper than documents are read.
    fn exchange(&self, at: u32, changes: &[(u32, String)], out: &mut Vec<u8>) {
        let node = self.node(at);
        if let Ok(found) = changes.binary_search_by_key(&at, |(node, _)| *node) {
            put(changes[found].1.as_bytes(), out);
            return;
        }
        let (open, close) = match node.kind {
            NodeKind::Array => (b'[', b']'),
            NodeKind::Object => (b'{', b'}'),
            NodeKind::Plain | NodeKind::Escaped => return put(self.string(node.span), out),
            NodeKind::Null | NodeKind::True | NodeKind::False | NodeKind::Number => {
                return out.extend_from_slice(self.text(node.span));
            }
        };
        out.push(open);
        for (index, inner) in self.inner(at).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if node.kind == NodeKind::Object {
                put(self.string(self.node(inner).name.span), out);
                out.push(b':');
            }
            self.exchange(inner, changes, out);
        }
        out.push(close);
    }
}
