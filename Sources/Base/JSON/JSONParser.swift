/// The recursive-descent parser behind `JSONDocument`.
struct JSONParser {
    private var scan: JSONScanner
    private var depth = 0

    init(text: UnsafeBufferPointer<UInt8>) { scan = JSONScanner(text: text) }

    mutating func document(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        scan.skipSpace()
        try value(into: &tape)
        scan.skipSpace()
        guard scan.offset == scan.text.count else { throw scan.failure("something follows the value") }
    }

    private mutating func value(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        guard scan.offset < scan.text.count else { throw scan.failure("a value is missing") }
        switch scan.text[scan.offset] {
        case 0x7B: try object(into: &tape)
        case 0x5B: try array(into: &tape)
        default: append(try scan.leaf(), &tape)
        }
    }

    @inline(__always)
    private func append(_ leaf: JSONScanner.Leaf, _ tape: inout [JSONDocument.Node]) {
        let next = Int32(tape.count + 1)
        tape.append(
            JSONDocument.Node(
                kind: leaf.kind, escaped: leaf.escaped, start: Int32(leaf.start), end: Int32(leaf.end), next: next,
                count: 0))
    }

    private mutating func enter(_ kind: JSONDocument.Kind, _ tape: inout [JSONDocument.Node]) throws(BaseError) -> Int {
        depth += 1
        guard depth <= Limits.jsonDepth else { throw scan.failure("more than \(Limits.jsonDepth) levels are nested") }
        append(JSONScanner.Leaf(kind: kind, escaped: false, start: scan.offset, end: scan.offset), &tape)
        return tape.count - 1
    }

    private mutating func array(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        let node = try enter(.array, &tape)
        var count: Int32 = 0
        if scan.opens(0x5D) {
            repeat {
                try value(into: &tape)
                count += 1
            } while try scan.goesOn(0x5D)
        }
        close(node, count, &tape)
    }

    private mutating func object(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        let node = try enter(.object, &tape)
        var count: Int32 = 0
        if scan.opens(0x7D) {
            repeat {
                append(try scan.key(), &tape)
                try value(into: &tape)
                count += 1
            } while try scan.goesOn(0x7D)
        }
        close(node, count, &tape)
    }

    private mutating func close(_ node: Int, _ count: Int32, _ tape: inout [JSONDocument.Node]) {
        tape[node].end = Int32(scan.offset)
        tape[node].next = Int32(tape.count)
        tape[node].count = count
        depth -= 1
    }
}
