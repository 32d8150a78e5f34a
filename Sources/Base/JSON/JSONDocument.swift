/// A parsed JSON text as a flat tape of nodes over the bytes it came from. One document object is reused for many
/// texts, so parsing a record allocates nothing once its arrays have grown. Nodes are named by their index; 0 is the
/// root. Grammar: RFC 8259, strictly.
@usableFromInline
package final class JSONDocument {
    package enum Kind: UInt8 { case null, falseValue, trueValue, number, string, object, array }

    package struct Node {
        package let kind: Kind
        package let escaped: Bool
        /// First byte of the value; of a string, the byte after its quote.
        package let start: Int32
        /// One past the last byte; of a string, its closing quote.
        package var end: Int32
        /// Index of the node after this one and everything inside it.
        package var next: Int32
        /// Children of an array, members of an object.
        package var count: Int32
    }

    package private(set) var bytes: [UInt8] = []
    package private(set) var nodes: [Node] = []

    package init() {}

    package convenience init(_ text: String) throws(BaseError) {
        self.init()
        try parse([UInt8](text.utf8))
    }

    package func parse(_ text: [UInt8]) throws(BaseError) {
        try text.withRaw { raw throws(BaseError) in try parse(raw) }
    }

    /// Replaces the document by the given text.
    package func parse(_ text: UnsafeRawBufferPointer) throws(BaseError) {
        guard text.count <= Limits.jsonText else {
            throw BaseError(
                "json-too-large", "a JSON text may have \(Limits.jsonText) bytes, this one has \(text.count)")
        }
        bytes.removeAll(keepingCapacity: true)
        bytes.append(contentsOf: text)
        nodes.removeAll(keepingCapacity: true)
        var tape = nodes
        nodes = []
        defer { nodes = tape }
        try text.withMemoryRebound(to: UInt8.self) { raw throws(BaseError) in
            var parser = JSONParser(text: raw)
            try parser.document(into: &tape)
        }
    }

    // MARK: Access

    @inline(__always)
    package func kind(_ node: Int) -> Kind { nodes[node].kind }

    /// Values within a value, itself and the keys of objects included.
    package func size(of node: Int) -> Int { Int(nodes[node].next) - node }

    /// The member of an object with that key, as a node index; nil when it is absent or `node` is no object.
    package func member(_ node: Int, _ key: JSONKey) -> Int? {
        let object = nodes[node]
        guard object.kind == .object else { return nil }
        var index = node + 1
        for _ in 0..<Int(object.count) {
            if matches(index, key) { return index + 1 }
            index = Int(nodes[index + 1].next)
        }
        return nil
    }

    private func matches(_ node: Int, _ key: JSONKey) -> Bool {
        let found = nodes[node]
        // By bytes: texts that merely look the same are other keys.
        if found.escaped { return string(node)?.utf8.elementsEqual(key.utf8) == true }
        let count = Int(found.end - found.start)
        guard count == key.utf8.count else { return false }
        return bytes.withUnsafeBufferPointer { raw in
            let base = Int(found.start)
            for offset in 0..<count where raw[base + offset] != key.utf8[offset] { return false }
            return true
        }
    }

    /// Visits the elements of an array.
    package func forEachElement(_ node: Int, _ body: (Int) throws -> Void) rethrows {
        guard nodes[node].kind == .array else { return }
        var index = node + 1
        for _ in 0..<Int(nodes[node].count) {
            let next = Int(nodes[index].next)
            try body(index)
            index = next
        }
    }

    /// Visits the members of an object: key node, value node.
    package func forEachMember(_ node: Int, _ body: (Int, Int) throws -> Void) rethrows {
        guard nodes[node].kind == .object else { return }
        var index = node + 1
        for _ in 0..<Int(nodes[node].count) {
            let next = Int(nodes[index + 1].next)
            try body(index, index + 1)
            index = next
        }
    }

    /// The value's bytes as they stand in the text; of a string, what is between the quotes.
    package func raw(_ node: Int) -> ArraySlice<UInt8> {
        bytes[Int(nodes[node].start)..<Int(nodes[node].end)]
    }

    /// Whether a text stands there just so, without escapes.
    package func isPlain(_ node: Int, _ text: ArraySlice<UInt8>) -> Bool {
        let found = nodes[node]
        let count = Int(found.end - found.start)
        guard !found.escaped, count == text.count else { return false }
        return bytes.withUnsafeBufferPointer { raw in
            text.withUnsafeBufferPointer { text in
                let base = Int(found.start)
                for offset in 0..<count where raw[base + offset] != text[offset] { return false }
                return true
            }
        }
    }

    package func double(_ node: Int) -> Double? {
        let found = nodes[node]
        guard found.kind == .number else { return nil }
        return bytes.withUnsafeBufferPointer {
            JSONNumber.double(UnsafeBufferPointer(rebasing: $0[Int(found.start)..<Int(found.end)]))
        }
    }

    /// The number when it is an integer that fits; nil otherwise.
    package func int(_ node: Int) -> Int64? {
        let found = nodes[node]
        guard found.kind == .number else { return nil }
        return bytes.withUnsafeBufferPointer {
            JSONNumber.integer(UnsafeBufferPointer(rebasing: $0[Int(found.start)..<Int(found.end)]))
        }
    }

    package func bool(_ node: Int) -> Bool? {
        switch nodes[node].kind {
        case .trueValue: true
        case .falseValue: false
        default: nil
        }
    }

    package func string(_ node: Int) -> String? {
        let found = nodes[node]
        guard found.kind == .string else { return nil }
        if !found.escaped { return String(decoding: raw(node), as: UTF8.self) }
        return JSONString.unescape(raw(node))
    }

    /// A key that stands twice in one object; readers differ on what such a text means.
    package func duplicateKey() -> String? {
        var keys: [(hash: UInt64, node: Int)] = []
        for node in nodes.indices where nodes[node].kind == .object && nodes[node].count > 1 {
            keys.removeAll(keepingCapacity: true)
            forEachMember(node) { key, _ in keys.append((hash(ofKey: key), key)) }
            // Sorted, so that an object of a million keys costs no million times a million comparisons.
            keys.sort { $0.hash < $1.hash }
            for index in keys.indices.dropFirst() {
                var other = index - 1
                while other >= 0, keys[other].hash == keys[index].hash {
                    if sameText(keys[other].node, keys[index].node) { return string(keys[index].node) }
                    other -= 1
                }
            }
        }
        return nil
    }

    private func hash(ofKey node: Int) -> UInt64 {
        guard !nodes[node].escaped else { return stableHash(of: string(node) ?? "") }
        return bytes.withUnsafeBytes {
            Base.stableHash(UnsafeRawBufferPointer(rebasing: $0[Int(nodes[node].start)..<Int(nodes[node].end)]))
        }
    }

    private func stableHash(of text: String) -> UInt64 {
        var text = text
        return text.withUTF8 { Base.stableHash(UnsafeRawBufferPointer($0)) }
    }

    private func sameText(_ left: Int, _ right: Int) -> Bool {
        let (a, b) = (nodes[left], nodes[right])
        if a.escaped || b.escaped { return string(left)?.utf8.elementsEqual((string(right) ?? "").utf8) ?? false }
        guard a.end - a.start == b.end - b.start else { return false }
        return bytes.withUnsafeBufferPointer { raw in
            for offset in 0..<Int(a.end - a.start) where raw[Int(a.start) + offset] != raw[Int(b.start) + offset] {
                return false
            }
            return true
        }
    }

    /// The whole value as a tree, for the control plane.
    package func value(_ node: Int = 0) throws(BaseError) -> JSON {
        switch nodes[node].kind {
        case .null: return .null
        case .falseValue: return .bool(false)
        case .trueValue: return .bool(true)
        case .string: return .string(string(node) ?? "")
        case .number:
            if let integer = int(node) { return .int(integer) }
            return .double(double(node) ?? .nan)
        case .array:
            var items: [JSON] = []
            var index = node + 1
            for _ in 0..<Int(nodes[node].count) {
                items.append(try value(index))
                index = Int(nodes[index].next)
            }
            return .array(items)
        case .object:
            var members: [String: JSON] = [:]
            var index = node + 1
            for _ in 0..<Int(nodes[node].count) {
                let key = string(index) ?? ""
                guard members[key] == nil else {
                    throw BaseError(
                        "json-duplicate-key", "the key '\(key)' stands twice in one JSON object; keep one of them")
                }
                members[key] = try value(index + 1)
                index = Int(nodes[index + 1].next)
            }
            return .object(members)
        }
    }
}
