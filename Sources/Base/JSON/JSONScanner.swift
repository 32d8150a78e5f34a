/// The lexical part of JSON (RFC 8259, strictly): where a string, a number or a word ends, and whether it is one. What
/// builds a tape and what only picks members out read through the same scanner, so they take and refuse the same texts.
struct JSONScanner {
    /// A value without children, by its place in the text; of a string, what is between its quotes.
    struct Leaf {
        let kind: JSONDocument.Kind
        let escaped: Bool
        let start: Int
        let end: Int
    }

    let text: UnsafeBufferPointer<UInt8>
    var offset = 0

    init(text: UnsafeBufferPointer<UInt8>) { self.text = text }

    func failure(_ what: String) -> BaseError {
        BaseError("bad-json", "\(what) at byte \(offset) of the JSON text")
    }

    @inline(__always)
    mutating func skipSpace() {
        while offset < text.count {
            switch text[offset] {
            case 0x20, 0x0A, 0x0D, 0x09: offset += 1
            default: return
            }
        }
    }

    /// A string, a number or a word; the caller has seen that neither an object nor an array begins here.
    @inline(__always)
    mutating func leaf() throws(BaseError) -> Leaf {
        switch text[offset] {
        case 0x22: try string()
        case 0x74: try word("true", .trueValue)
        case 0x66: try word("false", .falseValue)
        case 0x6E: try word("null", .null)
        default: try number()
        }
    }

    private mutating func word(_ word: StaticString, _ kind: JSONDocument.Kind) throws(BaseError) -> Leaf {
        let start = offset
        let count = word.utf8CodeUnitCount
        guard offset + count <= text.count else { throw failure("an unknown word stands") }
        for index in 0..<count where text[offset + index] != word.utf8Start[index] {
            throw failure("an unknown word stands")
        }
        offset += count
        return Leaf(kind: kind, escaped: false, start: start, end: offset)
    }

    /// In each byte of a word the highest bit is set where the byte ends a run of plain text: a quote, a backslash, a
    /// control character, or a byte of more than seven bits. Bytes behind the first such one may be marked wrongly.
    @inline(__always)
    private static func marks(_ word: UInt64) -> UInt64 {
        let ones: UInt64 = 0x0101_0101_0101_0101
        let quote = word ^ (ones &* 0x22)
        let slash = word ^ (ones &* 0x5C)
        return ((quote &- ones) | (slash &- ones) | (word &- (ones &* 0x20)) | word) & (ones &* 0x80)
    }

    /// Goes on to the next byte that is not plain text, or to the end.
    @inline(__always)
    private mutating func skipPlain() {
        guard let base = UnsafeRawPointer(text.baseAddress) else { return }
        while offset + 8 <= text.count {
            let marks = JSONScanner.marks(
                UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
            guard marks == 0 else {
                offset += marks.trailingZeroBitCount >> 3
                return
            }
            offset += 8
        }
        while offset < text.count {
            let byte = text[offset]
            if byte == 0x22 || byte == 0x5C || byte < 0x20 || byte >= 0x80 { return }
            offset += 1
        }
    }

    @inline(__always)
    mutating func string() throws(BaseError) -> Leaf {
        offset += 1
        let start = offset
        skipPlain()
        guard offset < text.count, text[offset] == 0x22 else { return try unusualString(from: start) }
        offset += 1
        return Leaf(kind: .string, escaped: false, start: start, end: offset - 1)
    }

    /// The rest of a string that holds more than plain text, or has no end.
    private mutating func unusualString(from start: Int) throws(BaseError) -> Leaf {
        var escaped = false
        var ascii = true
        while true {
            skipPlain()
            guard offset < text.count else { throw failure("a string has no closing quote") }
            let byte = text[offset]
            if byte == 0x22 { break }
            if byte == 0x5C {
                escaped = true
                try escape()
                continue
            }
            guard byte >= 0x20 else { throw failure("a control character stands in a string") }
            ascii = false
            offset += 1
        }
        if !ascii {
            let piece = UnsafeBufferPointer(rebasing: text[start..<offset])
            guard String(validating: piece, as: UTF8.self) != nil else { throw failure("a string is not UTF-8") }
        }
        offset += 1
        return Leaf(kind: .string, escaped: escaped, start: start, end: offset - 1)
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

    private mutating func number() throws(BaseError) -> Leaf {
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
        var hasExponent = false
        if offset < text.count, text[offset] | 0x20 == 0x65 {
            hasExponent = true
            offset += 1
            if offset < text.count, text[offset] == 0x2B || text[offset] == 0x2D { offset += 1 }
            let exponent = offset
            digits()
            guard offset > exponent else { throw failure("a number ends in its exponent") }
        }
        // Without an exponent a number leaves the range of a double only with more than 308 digits.
        if hasExponent || offset - start > 308 {
            let piece = UnsafeBufferPointer(rebasing: text[start..<offset])
            guard JSONNumber.double(piece)?.isFinite == true else { throw failure("a number is out of range") }
        }
        return Leaf(kind: .number, escaped: false, start: start, end: offset)
    }

    @inline(__always)
    private mutating func digits() {
        while offset < text.count, text[offset] >= 0x30, text[offset] <= 0x39 { offset += 1 }
    }

    // MARK: Structure

    /// A key and its colon. True when the object ends here instead, which only its first member may.
    mutating func key() throws(BaseError) -> Leaf {
        guard offset < text.count, text[offset] == 0x22 else { throw failure("a key is missing in an object") }
        let key = try string()
        skipSpace()
        guard offset < text.count, text[offset] == 0x3A else { throw failure("a colon is missing in an object") }
        offset += 1
        skipSpace()
        return key
    }

    /// Behind a value of an object or array: true when another one follows, false at its end.
    @inline(__always)
    mutating func goesOn(_ end: UInt8) throws(BaseError) -> Bool {
        skipSpace()
        guard offset < text.count else {
            throw failure(end == 0x7D ? "an object has no end" : "an array has no end")
        }
        offset += 1
        if text[offset - 1] == end { return false }
        guard text[offset - 1] == 0x2C else {
            throw failure("a comma is missing in an \(end == 0x7D ? "object" : "array")")
        }
        skipSpace()
        return true
    }

    /// The opening bracket of an object or array; false when its end follows at once.
    @inline(__always)
    mutating func opens(_ end: UInt8) -> Bool {
        offset += 1
        skipSpace()
        guard offset < text.count, text[offset] == end else { return true }
        offset += 1
        return false
    }
}
