/// Picks members out of JSON texts by their paths without building anything of the rest: what is not wanted is checked and
/// stepped over. It takes and refuses exactly the texts that `JSONDocument` does, and finds the same members (of a key that
/// stands twice, the first). One object is used for many texts and allocates nothing per text.
package struct JSONProjection {
    /// Where a wanted value stands in the text; of a string, what is between its quotes.
    package struct Slot: Sendable {
        /// nil when the text has no such member.
        package fileprivate(set) var kind: JSONDocument.Kind?
        package fileprivate(set) var escaped = false
        package fileprivate(set) var start: Int32 = 0
        package fileprivate(set) var end: Int32 = 0
    }

    /// An object on the way to wanted members.
    private struct Branch {
        struct Edge {
            let key: JSONKey
            /// Up to 8 bytes of the key, so that most keys are told apart by one comparison.
            let head: UInt64
            var slot = -1
            var branch = -1
        }

        var edges: [Edge] = []
        /// Bit of an edge whose key was seen in this text.
        var seen: UInt64 = 0
        /// The edge that the last text had behind each of its edges: texts of one topic are alike.
        var guess = 0
    }

    /// Wanted members of one object.
    package static let edgeLimit = 64

    private var branches: [Branch] = [Branch()]
    private var root = -1
    package private(set) var slots: [Slot]

    /// - Parameter paths: keys from the root to each wanted value; the slots come in this order. A path that stands twice has
    ///   two slots.
    package init(_ paths: [[JSONKey]]) throws(BaseError) {
        slots = []
        places = []
        for path in paths {
            if let known = paths.firstIndex(of: path), known < places.count {
                places.append(places[known])
                continue
            }
            places.append(slots.count)
            slots.append(Slot())
            try insert(path, slot: slots.count - 1)
        }
    }

    /// Slot of each path.
    private var places: [Int]

    private mutating func insert(_ path: [JSONKey], slot: Int) throws(BaseError) {
        guard !path.isEmpty else { return root = slot }
        var branch = 0
        for (depth, key) in path.enumerated() {
            var edge = branches[branch].edges.firstIndex { $0.key == key } ?? -1
            if edge < 0 {
                guard branches[branch].edges.count < JSONProjection.edgeLimit else {
                    throw BaseError(
                        "too-many-members",
                        "at most \(JSONProjection.edgeLimit) members of one object can be picked out")
                }
                edge = branches[branch].edges.count
                let head = key.utf8.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                branches[branch].edges.append(Branch.Edge(key: key, head: head))
            }
            if depth == path.count - 1 {
                branches[branch].edges[edge].slot = slot
            } else {
                if branches[branch].edges[edge].branch < 0 {
                    branches[branch].edges[edge].branch = branches.count
                    branches.append(Branch())
                }
                branch = branches[branch].edges[edge].branch
            }
        }
    }

    /// The slot of the path with this number.
    @inline(__always)
    package func slot(_ path: Int) -> Slot { slots[places[path]] }

    /// Finds the wanted values of a text. Throws `bad-json` for what is no JSON, and `json-too-large`.
    package mutating func project(_ text: UnsafeRawBufferPointer) throws(BaseError) {
        guard text.count <= Limits.jsonText else {
            throw BaseError(
                "json-too-large", "a JSON text may have \(Limits.jsonText) bytes, this one has \(text.count)")
        }
        for index in slots.indices { slots[index].kind = nil }
        for index in branches.indices {
            branches[index].seen = 0
            branches[index].guess = 0
        }
        try text.withMemoryRebound(to: UInt8.self) { bytes throws(BaseError) in
            var scan = JSONScanner(text: bytes)
            scan.skipSpace()
            try value(&scan, branch: 0, slot: root, depth: 0)
            scan.skipSpace()
            guard scan.offset == bytes.count else { throw scan.failure("something follows the value") }
        }
    }

    /// A value that is wanted, or on the way to one.
    private mutating func value(_ scan: inout JSONScanner, branch: Int, slot: Int, depth: Int) throws(BaseError) {
        guard scan.offset < scan.text.count else { throw scan.failure("a value is missing") }
        let start = scan.offset
        switch scan.text[start] {
        case 0x7B where branch >= 0:
            try members(&scan, branch, depth + 1)
            note(slot, JSONScanner.Leaf(kind: .object, escaped: false, start: start, end: scan.offset))
        case 0x7B, 0x5B:
            let kind: JSONDocument.Kind = scan.text[start] == 0x7B ? .object : .array
            try JSONProjection.skip(&scan, depth)
            note(slot, JSONScanner.Leaf(kind: kind, escaped: false, start: start, end: scan.offset))
        default: note(slot, try scan.leaf())
        }
    }

    @inline(__always)
    private mutating func note(_ slot: Int, _ leaf: JSONScanner.Leaf) {
        guard slot >= 0 else { return }
        slots[slot].kind = leaf.kind
        slots[slot].escaped = leaf.escaped
        slots[slot].start = Int32(leaf.start)
        slots[slot].end = Int32(leaf.end)
    }

    private mutating func members(_ scan: inout JSONScanner, _ branch: Int, _ depth: Int) throws(BaseError) {
        guard depth <= Limits.jsonDepth else { throw scan.failure("more than \(Limits.jsonDepth) levels are nested") }
        guard scan.opens(0x7D) else { return }
        repeat {
            let key = try scan.key()
            let edge = find(key, scan.text, branch)
            guard edge >= 0 else {
                try JSONProjection.skipValue(&scan, depth)
                continue
            }
            branches[branch].seen |= 1 << UInt64(edge)
            let found = branches[branch].edges[edge]
            try value(&scan, branch: found.branch, slot: found.slot, depth: depth)
        } while try scan.goesOn(0x7D)
    }

    /// The edge of a key that this text did not have yet; -1 when it is not wanted.
    @inline(__always)
    private mutating func find(_ key: JSONScanner.Leaf, _ text: UnsafeBufferPointer<UInt8>, _ branch: Int) -> Int {
        if key.escaped { return findEscaped(key, text, branch) }
        let count = key.end - key.start
        guard let base = text.baseAddress else { return -1 }
        let bytes = UnsafeRawPointer(base + key.start)
        var head: UInt64 = 0
        // A key is followed by its quote and a colon and a value, so at least three bytes stand behind it.
        if key.start + 8 <= text.count {
            head = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
            if count < 8 { head &= (1 << UInt64(count * 8)) - 1 }
        } else {
            for index in 0..<min(count, 8) { head |= UInt64(base[key.start + index]) << UInt64(index * 8) }
        }
        let edges = branches[branch].edges.count
        var index = branches[branch].guess
        for _ in 0..<edges {
            if index >= edges { index = 0 }
            let isSame = branches[branch].edges.withUnsafeBufferPointer { list in
                guard list[index].head == head, list[index].key.utf8.count == count else { return false }
                return count <= 8 || JSONProjection.equal(UnsafeRawBufferPointer(list[index].key.utf8), bytes, count)
            }
            if isSame {
                guard branches[branch].seen & (1 << UInt64(index)) == 0 else { return -1 }
                branches[branch].guess = index + 1
                return index
            }
            index += 1
        }
        return -1
    }

    @inline(__always)
    private static func equal(_ key: UnsafeRawBufferPointer, _ bytes: UnsafeRawPointer, _ count: Int) -> Bool {
        for index in 8..<count where key[index] != bytes.load(fromByteOffset: index, as: UInt8.self) { return false }
        return true
    }

    private func findEscaped(_ key: JSONScanner.Leaf, _ text: UnsafeBufferPointer<UInt8>, _ branch: Int) -> Int {
        let name = JSONString.unescape(ArraySlice(text[key.start..<key.end]))
        let edge = branches[branch].edges.firstIndex { $0.key.utf8.elementsEqual(name.utf8) } ?? -1
        return edge >= 0 && branches[branch].seen & (1 << UInt64(edge)) == 0 ? edge : -1
    }

    // MARK: What is not wanted

    @inline(__always)
    private static func skipValue(_ scan: inout JSONScanner, _ depth: Int) throws(BaseError) {
        guard scan.offset < scan.text.count else { throw scan.failure("a value is missing") }
        switch scan.text[scan.offset] {
        case 0x7B, 0x5B: try skip(&scan, depth)
        default: _ = try scan.leaf()
        }
    }

    /// Steps over an object or array with everything inside it.
    private static func skip(_ scan: inout JSONScanner, _ depth: Int) throws(BaseError) {
        guard depth < Limits.jsonDepth else { throw scan.failure("more than \(Limits.jsonDepth) levels are nested") }
        if scan.text[scan.offset] == 0x5B {
            guard scan.opens(0x5D) else { return }
            repeat { try skipValue(&scan, depth + 1) } while try scan.goesOn(0x5D)
        } else {
            guard scan.opens(0x7D) else { return }
            repeat {
                _ = try scan.key()
                try skipValue(&scan, depth + 1)
            } while try scan.goesOn(0x7D)
        }
    }
}

extension JSONProjection.Slot {
    /// The number; nil where no number stands.
    @inline(__always)
    package func double(in text: UnsafeRawBufferPointer) -> Double? {
        guard kind == .number else { return nil }
        return bytes(in: text).withMemoryRebound(to: UInt8.self) { JSONNumber.double($0) }
    }

    /// The number when it is an integer that fits; nil otherwise.
    @inline(__always)
    package func int(in text: UnsafeRawBufferPointer) -> Int64? {
        guard kind == .number else { return nil }
        return bytes(in: text).withMemoryRebound(to: UInt8.self) { JSONNumber.integer($0) }
    }

    package func string(in text: UnsafeRawBufferPointer) -> String? {
        guard kind == .string else { return nil }
        let raw = bytes(in: text)
        return escaped ? JSONString.unescape(ArraySlice(raw)) : String(decoding: raw, as: UTF8.self)
    }

    /// The value's bytes as they stand in the text; of a string, what is between the quotes.
    @inline(__always)
    package func bytes(in text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: text[Int(start)..<Int(end)])
    }
}
