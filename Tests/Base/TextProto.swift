import Base

/// A message in protobuf's text format, as far as the conformance files of CEL use it.
struct TextProto {
    /// Fields in the order they stand; a value is a text (strings unquoted, words and numbers as they are) or a message.
    enum Value {
        case text([UInt8])
        case message(TextProto)
    }

    struct Field {
        let name: String
        let value: Value
    }

    private(set) var fields: [Field] = []

    func messages(_ name: String) -> [TextProto] {
        fields.compactMap { if $0.name == name, case .message(let inner) = $0.value { inner } else { nil } }
    }

    func message(_ name: String) -> TextProto? { messages(name).first }

    func bytes(_ name: String) -> [UInt8]? {
        for field in fields where field.name == name { if case .text(let bytes) = field.value { return bytes } }
        return nil
    }

    func text(_ name: String) -> String? { bytes(name).map { String(decoding: $0, as: UTF8.self) } }

    init(_ source: [UInt8]) throws {
        var reader = Reader(source: source)
        self = try reader.message(end: nil)
    }

    private init() {}

    private struct Reader {
        let source: [UInt8]
        var index = 0

        mutating func skip() {
            while index < source.count {
                if source[index] == UInt8(ascii: "#") {
                    while index < source.count, source[index] != 0x0A { index += 1 }
                } else if [0x20, 0x09, 0x0A, 0x0D, UInt8(ascii: ","), UInt8(ascii: ";")].contains(source[index]) {
                    index += 1
                } else {
                    return
                }
            }
        }

        func failure(_ what: String) -> BaseError { BaseError("bad-text-proto", "\(what) at byte \(index)") }

        mutating func word() throws -> String {
            let start = index
            if index < source.count, source[index] == UInt8(ascii: "[") {
                while index < source.count, source[index] != UInt8(ascii: "]") { index += 1 }
                index += 1
            } else {
                while index < source.count, !" \t\r\n:{}<>#,;".utf8.contains(source[index]) { index += 1 }
            }
            guard index > start else { throw failure("a word is missing") }
            return String(decoding: source[start..<index], as: UTF8.self)
        }

        mutating func message(end: UInt8?) throws -> TextProto {
            var result = TextProto()
            while true {
                skip()
                guard index < source.count else {
                    guard end == nil else { throw failure("a message has no end") }
                    return result
                }
                if source[index] == end {
                    index += 1
                    return result
                }
                let name = try word()
                skip()
                if index < source.count, source[index] == UInt8(ascii: ":") { index += 1 }
                skip()
                guard index < source.count else { throw failure("a value is missing") }
                switch source[index] {
                case UInt8(ascii: "{"):
                    index += 1
                    result.fields.append(Field(name: name, value: .message(try message(end: UInt8(ascii: "}")))))
                case UInt8(ascii: "\""), UInt8(ascii: "'"):
                    var bytes: [UInt8] = []
                    while index < source.count, source[index] == 0x22 || source[index] == 0x27 {
                        bytes += try string()
                        skip()
                    }
                    result.fields.append(Field(name: name, value: .text(bytes)))
                default: result.fields.append(Field(name: name, value: .text([UInt8](try word().utf8))))
                }
            }
        }

        mutating func string() throws -> [UInt8] {
            let quote = source[index]
            index += 1
            var out: [UInt8] = []
            while index < source.count, source[index] != quote {
                guard source[index] == UInt8(ascii: "\\") else {
                    out.append(source[index])
                    index += 1
                    continue
                }
                index += 2
                let letter = source[index - 1]
                func digits(_ count: Int, _ radix: Int) -> UInt32? {
                    var end = index
                    while end < index + count, UInt8(String(UnicodeScalar(source[end])), radix: radix) != nil {
                        end += 1
                    }
                    let value = UInt32(String(decoding: source[index..<end], as: UTF8.self), radix: radix)
                    index = end
                    return value
                }
                switch letter {
                case UInt8(ascii: "a"): out.append(7)
                case UInt8(ascii: "b"): out.append(8)
                case UInt8(ascii: "f"): out.append(12)
                case UInt8(ascii: "n"): out.append(10)
                case UInt8(ascii: "r"): out.append(13)
                case UInt8(ascii: "t"): out.append(9)
                case UInt8(ascii: "v"): out.append(11)
                case UInt8(ascii: "x"), UInt8(ascii: "X"): out.append(UInt8(truncatingIfNeeded: digits(2, 16) ?? 0))
                case UInt8(ascii: "u"), UInt8(ascii: "U"):
                    guard let scalar = digits(letter == UInt8(ascii: "u") ? 4 : 8, 16).flatMap(UnicodeScalar.init)
                    else {
                        throw failure("no character")
                    }
                    out += [UInt8](String(scalar).utf8)
                case UInt8(ascii: "0")...UInt8(ascii: "7"):
                    index -= 1
                    out.append(UInt8(truncatingIfNeeded: digits(3, 8) ?? 0))
                default: out.append(letter)
                }
            }
            index += 1
            return out
        }
    }
}
