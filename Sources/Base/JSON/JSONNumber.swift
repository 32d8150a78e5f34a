import Foundation

/// JSON's numbers as text and back.
package enum JSONNumber {
    private static let powers: [Double] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22,
    ]

    /// Correctly rounded. Up to 15 digits with a power of ten of at most 22 are exact in one operation (Clinger 1990);
    /// everything else goes to strtod.
    package static func double(_ text: UnsafeBufferPointer<UInt8>) -> Double? {
        var mantissa: UInt64 = 0
        var digits = 0
        var exponent = 0
        var index = 0
        var negative = false
        var fraction = false
        if index < text.count, text[index] == 0x2D {
            negative = true
            index += 1
        }
        while index < text.count {
            let byte = text[index]
            if byte >= 0x30, byte <= 0x39 {
                digits += mantissa == 0 && byte == 0x30 ? 0 : 1
                guard digits <= 15 else { return slow(text) }
                mantissa = mantissa * 10 + UInt64(byte - 0x30)
                if fraction { exponent -= 1 }
            } else if byte == 0x2E {
                fraction = true
            } else {
                return slow(text)
            }
            index += 1
        }
        guard exponent >= -22 else { return slow(text) }
        let value = Double(mantissa) / powers[-exponent]
        return negative ? -value : value
    }

    private static func slow(_ text: UnsafeBufferPointer<UInt8>) -> Double? {
        Double(String(decoding: text, as: UTF8.self))
    }

    /// The value when the text is written as an integer and fits in 64 bits.
    package static func integer(_ text: UnsafeBufferPointer<UInt8>) -> Int64? {
        var magnitude: UInt64 = 0
        var index = 0
        var negative = false
        if index < text.count, text[index] == 0x2D {
            negative = true
            index += 1
        }
        guard index < text.count else { return nil }
        while index < text.count {
            guard text[index] >= 0x30, text[index] <= 0x39 else { return nil }
            let (product, over) = magnitude.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(text[index] - 0x30))
            guard !over, !carry else { return nil }
            magnitude = sum
            index += 1
        }
        if negative { return magnitude <= UInt64(Int64.max) + 1 ? Int64(truncatingIfNeeded: 0 &- magnitude) : nil }
        return Int64(exactly: magnitude)
    }

    /// The shortest text that reads back to the same value; NaN and infinities become null, since JSON has none.
    package static func append(_ value: Double, to out: inout [UInt8]) {
        guard value.isFinite else {
            out.append(contentsOf: "null".utf8)
            return
        }
        if value == value.rounded(.towardZero), abs(value) < 1e15, !(value == 0 && value.sign == .minus) {
            append(Int64(value), to: &out)
            return
        }
        out.append(contentsOf: value.description.utf8)
    }

    package static func append(_ value: Float, to out: inout [UInt8]) {
        guard value.isFinite else {
            out.append(contentsOf: "null".utf8)
            return
        }
        if value == value.rounded(.towardZero), abs(value) < 1e7, !(value == 0 && value.sign == .minus) {
            append(Int64(value), to: &out)
            return
        }
        out.append(contentsOf: value.description.utf8)
    }

    package static func append(_ value: Int64, to out: inout [UInt8]) {
        if value < 0 { out.append(0x2D) }
        var rest = value.magnitude
        let start = out.count
        repeat {
            out.append(0x30 + UInt8(rest % 10))
            rest /= 10
        } while rest > 0
        out[start...].reverse()
    }
}

/// JSON's strings as text and back.
package enum JSONString {
    @inline(__always)
    static func hexDigit(_ byte: UInt8) -> UInt32? {
        switch byte {
        case 0x30...0x39: UInt32(byte - 0x30)
        case 0x61...0x66: UInt32(byte - 0x61 + 10)
        case 0x41...0x46: UInt32(byte - 0x41 + 10)
        default: nil
        }
    }

    /// Unpaired surrogates become U+FFFD.
    static func unescape(_ bytes: ArraySlice<UInt8>) -> String {
        var out: [UInt8] = []
        out.reserveCapacity(bytes.count)
        var index = bytes.startIndex
        func unit(_ at: Int) -> UInt32? {
            guard at + 6 <= bytes.endIndex, bytes[at] == 0x5C, bytes[at + 1] == 0x75 else { return nil }
            var value: UInt32 = 0
            for place in at + 2..<at + 6 { value = value << 4 | (hexDigit(bytes[place]) ?? 0) }
            return value
        }
        while index < bytes.endIndex {
            guard bytes[index] == 0x5C else {
                out.append(bytes[index])
                index += 1
                continue
            }
            switch bytes[index + 1] {
            case 0x62: out.append(0x08)
            case 0x66: out.append(0x0C)
            case 0x6E: out.append(0x0A)
            case 0x72: out.append(0x0D)
            case 0x74: out.append(0x09)
            case 0x75:
                var code = unit(index) ?? 0xFFFD
                if (0xD800..<0xDC00).contains(code), let low = unit(index + 6), (0xDC00..<0xE000).contains(low) {
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                    index += 6
                }
                let scalar = Unicode.Scalar(code) ?? "\u{FFFD}"
                out.append(contentsOf: Character(scalar).utf8)
                index += 4
            default: out.append(bytes[index + 1])
            }
            index += 2
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// Appends the text in quotes, escaping what RFC 8259 demands.
    package static func append(_ text: String, to out: inout [UInt8]) {
        var text = text
        out.append(0x22)
        text.withUTF8 { append(escaping: UnsafeRawBufferPointer($0), to: &out) }
        out.append(0x22)
    }

    package static func append(escaping bytes: UnsafeRawBufferPointer, to out: inout [UInt8]) {
        var clean = 0
        for index in 0..<bytes.count {
            let byte = bytes[index]
            guard byte < 0x20 || byte == 0x22 || byte == 0x5C else { continue }
            out.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[clean..<index]))
            clean = index + 1
            switch byte {
            case 0x22, 0x5C: out.append(contentsOf: [0x5C, byte])
            case 0x0A: out.append(contentsOf: "\\n".utf8)
            case 0x0D: out.append(contentsOf: "\\r".utf8)
            case 0x09: out.append(contentsOf: "\\t".utf8)
            default:
                out.append(contentsOf: "\\u00".utf8)
                out.append(contentsOf: [UInt8]([byte]).hex.utf8)
            }
        }
        out.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[clean...]))
    }
}
