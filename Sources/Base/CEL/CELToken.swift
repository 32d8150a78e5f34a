/// A word of an expression.
struct CELToken {
    /// `quoted` is a name between backticks, for fields only.
    enum Kind { case int, uint, double, string, bytes, name, quoted, symbol }
    let kind: Kind
    let text: String

    var integer: Int64? {
        text.hasPrefix("0x") ? Int64(text.dropFirst(2), radix: 16) : Int64(text)
    }

    var unsigned: UInt64? {
        text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    }

    static func scan(_ source: String) throws(BaseError) -> [CELToken] {
        var scanner = CELScanner(source)
        var tokens: [CELToken] = []
        while let token = try scanner.next() {
            tokens.append(token)
            guard tokens.count <= 10_000 else {
                throw BaseError("bad-expression", "an expression may have 10000 words")
            }
        }
        return tokens
    }
}

private struct CELScanner {
    let text: [Unicode.Scalar]
    var index = 0

    init(_ source: String) { text = Array(source.unicodeScalars) }

    func failure(_ what: String) -> BaseError {
        BaseError(
            "bad-expression",
            "\(what) at character \(index + 1) of the expression: \(String(String.UnicodeScalarView(text)))")
    }

    func peek(_ ahead: Int = 0) -> Unicode.Scalar? { index + ahead < text.count ? text[index + ahead] : nil }

    static func isDigit(_ scalar: Unicode.Scalar?) -> Bool {
        guard let scalar else { return false }
        return scalar.value >= 0x30 && scalar.value <= 0x39
    }

    static func isLetter(_ scalar: Unicode.Scalar?) -> Bool {
        guard let value = scalar?.value else { return false }
        return value == 0x5F || (value | 0x20 >= 0x61 && value | 0x20 <= 0x7A && value < 0x80)
    }

    mutating func next() throws(BaseError) -> CELToken? {
        while let scalar = peek() {
            if "\t\n\u{0C}\r ".unicodeScalars.contains(scalar) {
                index += 1
            } else if scalar == "/", peek(1) == "/" {
                while let inside = peek(), inside != "\n" { _ = inside; index += 1 }
            } else {
                break
            }
        }
        guard let first = peek() else { return nil }
        if CELScanner.isDigit(first) || (first == "." && CELScanner.isDigit(peek(1))) { return try number() }
        if first == "\"" || first == "'" { return try string(raw: false, bytes: false) }
        if let literal = try prefixedString(first) { return literal }
        if CELScanner.isLetter(first) {
            let start = index
            while CELScanner.isLetter(peek()) || CELScanner.isDigit(peek()) { index += 1 }
            return CELToken(kind: .name, text: String(String.UnicodeScalarView(text[start..<index])))
        }
        if first == "`" { return try quoted() }
        for symbol in ["==", "!=", "<=", ">=", "&&", "||"]
        where symbol.unicodeScalars.elementsEqual(text[index..<min(index + 2, text.count)]) {
            index += 2
            return CELToken(kind: .symbol, text: symbol)
        }
        guard "<>+-*/%!?:.,()[]{}".unicodeScalars.contains(first) else { throw failure("an unknown character stands") }
        index += 1
        return CELToken(kind: .symbol, text: String(first))
    }

    private mutating func prefixedString(_ first: Unicode.Scalar) throws(BaseError) -> CELToken? {
        let lower = String(first).lowercased()
        guard lower == "r" || lower == "b" else { return nil }
        var ahead = 1
        var raw = lower == "r"
        var bytes = lower == "b"
        if let second = peek(1).map({ String($0).lowercased() }), second != lower, second == "r" || second == "b" {
            raw = true
            bytes = true
            ahead = 2
        }
        guard peek(ahead) == "\"" || peek(ahead) == "'" else { return nil }
        index += ahead
        return try string(raw: raw, bytes: bytes)
    }

    /// A field's name that is no identifier: letters, digits and `_ . - / ` and space.
    private mutating func quoted() throws(BaseError) -> CELToken {
        let start = index + 1
        index = start
        while let scalar = peek(), scalar != "`" {
            guard CELScanner.isLetter(scalar) || CELScanner.isDigit(scalar) || "_.-/ ".unicodeScalars.contains(scalar)
            else {
                throw failure("a name between backticks has an unknown character")
            }
            index += 1
        }
        guard peek() != nil, index > start else { throw failure("a name between backticks has no end or is empty") }
        index += 1
        return CELToken(kind: .quoted, text: String(String.UnicodeScalarView(text[start..<index - 1])))
    }

    private mutating func number() throws(BaseError) -> CELToken {
        let start = index
        if peek() == "0", peek(1) == "x" || peek(1) == "X" {
            index += 2
            while let scalar = peek(), scalar.properties.isASCIIHexDigit { index += 1 }
        } else {
            while CELScanner.isDigit(peek()) { index += 1 }
            var double = false
            if peek() == ".", CELScanner.isDigit(peek(1)) {
                double = true
                index += 1
                while CELScanner.isDigit(peek()) { index += 1 }
            }
            if peek() == "e" || peek() == "E" {
                double = true
                index += 1
                if peek() == "+" || peek() == "-" { index += 1 }
                guard CELScanner.isDigit(peek()) else { throw failure("a number ends in its exponent") }
                while CELScanner.isDigit(peek()) { index += 1 }
            }
            if double { return CELToken(kind: .double, text: String(String.UnicodeScalarView(text[start..<index]))) }
        }
        let digits = String(String.UnicodeScalarView(text[start..<index])).lowercased()
        if peek() == "u" || peek() == "U" {
            index += 1
            return CELToken(kind: .uint, text: digits)
        }
        return CELToken(kind: .int, text: digits)
    }

    private mutating func string(raw: Bool, bytes: Bool) throws(BaseError) -> CELToken {
        guard let quote = peek() else { throw failure("a string is missing") }
        let triple = peek(1) == quote && peek(2) == quote
        index += triple ? 3 : 1
        var out = String.UnicodeScalarView()
        while true {
            guard let scalar = peek() else { throw failure("a string has no end") }
            if scalar == quote, !triple || (peek(1) == quote && peek(2) == quote) {
                index += triple ? 3 : 1
                break
            }
            guard triple || (scalar != "\n" && scalar != "\r") else { throw failure("a line ends inside a string") }
            index += 1
            if scalar == "\\", !raw {
                try escape(bytes, &out)
            } else if bytes {
                for byte in String(scalar).utf8 { out.append(Unicode.Scalar(byte)) }
            } else {
                out.append(scalar)
            }
        }
        return CELToken(kind: bytes ? .bytes : .string, text: String(out))
    }

    private mutating func escape(_ bytes: Bool, _ out: inout String.UnicodeScalarView) throws(BaseError) {
        guard let scalar = peek() else { throw failure("an escape is cut off") }
        index += 1
        let simple: [Unicode.Scalar: UInt8] = [
            "a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 0x5C, "'": 0x27, "\"": 0x22, "`": 0x60,
            "?": 0x3F,
        ]
        if let value = simple[scalar] {
            out.append(Unicode.Scalar(value))
            return
        }
        let (digits, radix): (Int, Int)
        switch scalar {
        case "x", "X": (digits, radix) = (2, 16)
        case "u" where !bytes: (digits, radix) = (4, 16)
        case "U" where !bytes: (digits, radix) = (8, 16)
        case "0", "1", "2", "3":
            (digits, radix) = (3, 8)
            index -= 1
        default: throw failure("an unknown escape stands")
        }
        guard index + digits <= text.count,
            let code = UInt32(String(String.UnicodeScalarView(text[index..<index + digits])), radix: radix),
            let value = Unicode.Scalar(code)
        else { throw failure("an escape names no character") }
        index += digits
        out.append(value)
    }
}
