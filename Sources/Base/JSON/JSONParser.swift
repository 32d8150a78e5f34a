/// The recursive-descent scanner behind `JSONDocument`.
struct JSONParser {
    let text: UnsafeBufferPointer<UInt8>
    var offset = 0
    var depth = 0

    init(text: UnsafeBufferPointer<UInt8>) { self.text = text }

    func failure(_ what: String) -> BaseError {
        BaseError("bad-json", "\(what) at byte \(offset) of the JSON text")
    }

    mutating func document(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        skipSpace()
        try value(into: &tape)
        skipSpace()
        guard offset == text.count else { throw failure("something follows the value") }
    }

    @inline(__always)
    private mutating func skipSpace() {
        while offset < text.count {
            switch text[offset] {
            case 0x20, 0x0A, 0x0D, 0x09: offset += 1
            default: return
            }
        }
    }

    private mutating func value(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        guard offset < text.count else { throw failure("a value is missing") }
        switch text[offset] {
        case 0x7B: try object(into: &tape)
        case 0x5B: try array(into: &tape)
        case 0x22: try string(into: &tape)
        case 0x74: try word("true", .trueValue, into: &tape)
        case 0x66: try word("false", .falseValue, into: &tape)
        case 0x6E: try word("null", .null, into: &tape)
        default: try number(into: &tape)
        }
    }

    private mutating func word(
        _ word: StaticString, _ kind: JSONDocument.Kind, into tape: inout [JSONDocument.Node]
    ) throws(BaseError) {
        let start = offset
        let count = word.utf8CodeUnitCount
        guard offset + count <= text.count else { throw failure("an unknown word stands") }
        for index in 0..<count where text[offset + index] != word.utf8Start[index] {
            throw failure("an unknown word stands")
        }
        offset += count
        leaf(kind, start, offset, false, &tape)
    }

    @inline(__always)
    private func leaf(
        _ kind: JSONDocument.Kind, _ start: Int, _ end: Int, _ escaped: Bool, _ tape: inout [JSONDocument.Node]
    ) {
        let next = Int32(tape.count + 1)
        tape.append(
            JSONDocument.Node(
                kind: kind, escaped: escaped, start: Int32(start), end: Int32(end), next: next, count: 0))
    }

    private mutating func string(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        offset += 1
        let start = offset
        var escaped = false
        var ascii = true
        while true {
            guard offset < text.count else { throw failure("a string has no closing quote") }
            let byte = text[offset]
            if byte == 0x22 { break }
            if byte == 0x5C {
                escaped = true
                try escape()
                continue
            }
            guard byte >= 0x20 else { throw failure("a control character stands in a string") }
            if byte >= 0x80 { ascii = false }
            offset += 1
        }
        if !ascii {
            let piece = UnsafeBufferPointer(rebasing: text[start..<offset])
            guard String(validating: piece, as: UTF8.self) != nil else { throw failure("a string is not UTF-8") }
        }
        leaf(.string, start, offset, escaped, &tape)
        offset += 1
    }

    private mutating func escape() throws(BaseError) {
        guard offset + 1 < text.count else { throw failure("an escape is cut off") }
        switch text[offset + 1] {
        case 0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74: offset += 2
        case 0x75:
            guard offset + 6 <= text.count else { throw failure("an escape is cut off") }
            let code = try unit(at: offset)
            offset += 6
            if (0xD800..<0xDC00).contains(code) {
                guard offset + 6 <= text.count, text[offset] == 0x5C, text[offset + 1] == 0x75,
                    (0xDC00..<0xE000).contains(try unit(at: offset))
                else { throw failure("half of a surrogate pair stands alone") }
                offset += 6
            } else if (0xDC00..<0xE000).contains(code) {
                throw failure("half of a surrogate pair stands alone")
            }
        default: throw failure("an unknown escape stands")
        }
    }

    /// The UTF-16 unit of a \u escape.
    private func unit(at place: Int) throws(BaseError) -> UInt32 {
        var code: UInt32 = 0
        for index in place + 2..<place + 6 {
            guard let digit = JSONString.hexDigit(text[index]) else {
                throw failure("an escape has a digit that is not hexadecimal")
            }
            code = code << 4 | digit
        }
        return code
    }

    private mutating func number(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        let start = offset
        if offset < text.count, text[offset] == 0x2D { offset += 1 }
        let first = offset
        digits()
        guard offset > first, !(text[first] == 0x30 && offset > first + 1) else {
            offset = start
            throw failure("no value stands")
        }
        if offset < text.count, text[offset] == 0x2E {
            offset += 1
            let fraction = offset
            digits()
            guard offset > fraction else { throw failure("a number ends at its decimal point") }
        }
        if offset < text.count, text[offset] | 0x20 == 0x65 {
            offset += 1
            if offset < text.count, text[offset] == 0x2B || text[offset] == 0x2D { offset += 1 }
            let exponent = offset
            digits()
            guard offset > exponent else { throw failure("a number ends in its exponent") }
            let piece = UnsafeBufferPointer(rebasing: text[start..<offset])
            guard JSONNumber.double(piece)?.isFinite == true else { throw failure("a number is out of range") }
        }
        // Without an exponent a number leaves the range of a double only with more than 308 digits.
        if offset - start > 308 {
            let piece = UnsafeBufferPointer(rebasing: text[start..<offset])
            guard JSONNumber.double(piece)?.isFinite == true else { throw failure("a number is out of range") }
        }
        leaf(.number, start, offset, false, &tape)
    }

    @inline(__always)
    private mutating func digits() {
        while offset < text.count, text[offset] >= 0x30, text[offset] <= 0x39 { offset += 1 }
    }

    private mutating func enter() throws(BaseError) {
        depth += 1
        guard depth <= Limits.jsonDepth else { throw failure("more than \(Limits.jsonDepth) levels are nested") }
    }

    private mutating func array(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        try enter()
        let node = tape.count
        leaf(.array, offset, offset, false, &tape)
        offset += 1
        var count: Int32 = 0
        skipSpace()
        if offset < text.count, text[offset] == 0x5D {
            offset += 1
        } else {
            while true {
                skipSpace()
                try value(into: &tape)
                count += 1
                skipSpace()
                guard offset < text.count else { throw failure("an array has no end") }
                offset += 1
                if text[offset - 1] == 0x5D { break }
                guard text[offset - 1] == 0x2C else { throw failure("a comma is missing in an array") }
            }
        }
        close(node, count, &tape)
    }

    private mutating func object(into tape: inout [JSONDocument.Node]) throws(BaseError) {
        try enter()
        let node = tape.count
        leaf(.object, offset, offset, false, &tape)
        offset += 1
        var count: Int32 = 0
        skipSpace()
        if offset < text.count, text[offset] == 0x7D {
            offset += 1
        } else {
            while true {
                skipSpace()
                guard offset < text.count, text[offset] == 0x22 else { throw failure("a key is missing in an object") }
                try string(into: &tape)
                skipSpace()
                guard offset < text.count, text[offset] == 0x3A else {
                    throw failure("a colon is missing in an object")
                }
                offset += 1
                skipSpace()
                try value(into: &tape)
                count += 1
                skipSpace()
                guard offset < text.count else { throw failure("an object has no end") }
                offset += 1
                if text[offset - 1] == 0x7D { break }
                guard text[offset - 1] == 0x2C else { throw failure("a comma is missing in an object") }
            }
        }
        close(node, count, &tape)
    }

    private mutating func close(_ node: Int, _ count: Int32, _ tape: inout [JSONDocument.Node]) {
        tape[node].end = Int32(offset)
        tape[node].next = Int32(tape.count)
        tape[node].count = count
        depth -= 1
    }
}
