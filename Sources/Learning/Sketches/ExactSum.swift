import Base

/// A sum of doubles without rounding error until it is read: a fixed-point accumulator over the whole range of a double,
/// in 32-bit digits held in 64-bit words (Neal, "Fast exact summation using small and large superaccumulators", 2015).
/// Adding and subtracting are exact and independent of order, so a window that slides by subtraction equals one summed
/// afresh, to the bit.
package struct ExactSum: Sendable {
    /// 2^-1074 is bit 0; 2^1023 with a 53-bit mantissa and carries needs 67 digits of 32 bits.
    private static let digits = 68
    /// Additions before carries must be propagated: each adds less than 2^32 to a word.
    private static let carryInterval = 1 << 29

    /// As long as every value is a multiple of 2^-76 and below 2^34, which measurements mostly are, the sum is one whole
    /// number of 2^-76 and needs no digits: half a kilobyte of them would be paid for each key of each window.
    private var fixed: Int128 = 0
    private static let fixedBits = 76
    private static let fixedLimit = 34
    private var words: [Int64] = []
    private var additions = 0
    private var low = ExactSum.digits
    private var high = -1
    /// Infinities and NaN have no digits; they are counted apart, so that taking one away leaves nothing behind.
    private var specials: (positive: Int, negative: Int, nan: Int) = (0, 0, 0)

    package init() {}

    package mutating func add(_ value: Double) { accumulate(value, negate: false) }
    package mutating func subtract(_ value: Double) { accumulate(value, negate: true) }

    /// Adds a product without rounding it: the product of two doubles is the sum of two, the rounded one and what rounding
    /// lost (Dekker 1971; by fused multiplication), as long as the latter is no smaller than the smallest double.
    package mutating func add(_ value: Double, times factor: Double) { accumulate(value, times: factor, negate: false) }
    package mutating func subtract(_ value: Double, times factor: Double) {
        accumulate(value, times: factor, negate: true)
    }

    private mutating func accumulate(_ value: Double, times factor: Double, negate: Bool) {
        let product = value * factor
        accumulate(product, negate: negate)
        guard product.isFinite else { return }
        accumulate((-product).addingProduct(value, factor), negate: negate)
    }

    /// Adds everything that was added to another sum.
    package mutating func merge(_ other: ExactSum) {
        specials.positive += other.specials.positive
        specials.negative += other.specials.negative
        specials.nan += other.specials.nan
        if words.isEmpty, other.words.isEmpty {
            let (sum, overflows) = fixed.addingReportingOverflow(other.fixed)
            if !overflows {
                fixed = sum
                return
            }
        }
        if !other.words.isEmpty || other.fixed != 0 { spill() }
        var other = other
        other.spill()
        guard other.low <= other.high else { return }
        // Words of both are below 2^61 (fewer than 2^29 additions of less than 2^32 since carries were propagated).
        for index in other.low...other.high { words[index] += other.words[index] }
        low = min(low, other.low)
        high = max(high, other.high)
        propagate()
    }

    private mutating func accumulate(_ value: Double, negate: Bool) {
        guard value != 0 else { return }
        guard value.isFinite else {
            let change = negate ? -1 : 1
            if value.isNaN {
                specials.nan += change
            } else if value > 0 {
                specials.positive += change
            } else {
                specials.negative += change
            }
            return
        }
        let bits = value.bitPattern
        let exponent = Int(bits >> 52 & 0x7FF)
        var mantissa = bits & 0xF_FFFF_FFFF_FFFF
        if exponent > 0 { mantissa |= 1 << 52 }
        let negative = (value < 0) != negate
        if words.isEmpty, addFixed(mantissa, exponent, negative) { return }
        spill()
        let shift = max(exponent, 1) - 1
        let word = shift / 32
        let wide = UInt128(mantissa) << UInt128(shift % 32)
        for index in 0..<3 {
            let digit = Int64(truncatingIfNeeded: UInt64(truncatingIfNeeded: wide >> UInt128(32 * index)) & 0xFFFF_FFFF)
            words[word + index] += negative ? -digit : digit
        }
        low = min(low, word)
        high = max(high, word + 2)
        additions += 1
        if additions >= ExactSum.carryInterval { propagate() }
    }

    /// False, and nothing done, where the value or the sum is beyond what one number can hold.
    private mutating func addFixed(_ mantissa: UInt64, _ exponent: Int, _ negative: Bool) -> Bool {
        // The mantissa's lowest bit is 2^(exponent - 1075).
        let shift = exponent - 1075 + ExactSum.fixedBits
        guard exponent > 0, exponent < 1023 + ExactSum.fixedLimit, shift >= -mantissa.trailingZeroBitCount else {
            return false
        }
        let wide = shift >= 0 ? Int128(mantissa) << Int128(shift) : Int128(mantissa >> UInt64(-shift))
        let (sum, overflows) = fixed.addingReportingOverflow(negative ? -wide : wide)
        guard !overflows else { return false }
        fixed = sum
        return true
    }

    /// From one number to digits, for good.
    private mutating func spill() {
        guard words.isEmpty else { return }
        words = Array(repeating: 0, count: ExactSum.digits)
        guard fixed != 0 else { return }
        // 2^-76 is bit 998 above 2^-1074: digit 31, six bits up.
        let place = 1074 - ExactSum.fixedBits
        var rest = fixed.magnitude
        let isNegative = fixed < 0
        fixed = 0
        low = place / 32
        // The lowest digit takes what lies below the next one's first bit.
        let first = rest & ((UInt128(1) << UInt128(32 - place % 32)) - 1)
        words[low] = Int64(first) << Int64(place % 32)
        rest >>= UInt128(32 - place % 32)
        high = low
        while rest != 0 {
            high += 1
            words[high] = Int64(rest & 0xFFFF_FFFF)
            rest >>= 32
        }
        if isNegative { for index in low...high { words[index] = -words[index] } }
    }

    /// Leaves every word but the highest in 0..<2^32.
    private mutating func propagate() {
        additions = 0
        guard low <= high else { return }
        var index = low
        while index < high
            || (index < ExactSum.digits - 1 && index == high && (words[index] >> 32) != 0 && (words[index] >> 32) != -1)
        {
            let carry = words[index] >> 32
            words[index] -= carry << 32
            words[index + 1] += carry
            index += 1
            high = max(high, index)
        }
    }

    /// The sum, correctly rounded to nearest, ties to even.
    package var value: Double {
        if specials.nan != 0 || (specials.positive != 0 && specials.negative != 0) { return .nan }
        if specials.positive != 0 { return .infinity }
        if specials.negative != 0 { return -.infinity }
        if words.isEmpty {
            guard fixed != 0 else { return 0 }
            let magnitude = ExactSum.round(fixed.magnitude, exponent: -ExactSum.fixedBits, sticky: false)
            return fixed < 0 ? -magnitude : magnitude
        }
        guard low <= high else { return 0 }
        // Read as often as it is written, so on the stack: two digits of zeros below, one more for the carry above.
        let count = high - low + 4
        return withUnsafeTemporaryAllocation(of: Int64.self, capacity: count) { digits in
            digits[0] = 0
            digits[1] = 0
            for index in low...high { digits[index - low + 2] = words[index] }
            digits[count - 1] = 0
            return ExactSum.rounded(digits, firstExponent: (low - 2) * 32 - 1074)
        }
    }

    /// - Parameters:
    ///   - digits: of 32 bits with carries not yet propagated, lowest first; the first two and the last are zero.
    ///   - firstExponent: of two, for the first digit.
    private static func rounded(_ digits: UnsafeMutableBufferPointer<Int64>, firstExponent: Int) -> Double {
        let last = digits.count - 1
        func propagate() {
            for index in 2..<last {
                let carry = digits[index] >> 32
                digits[index] -= carry << 32
                digits[index + 1] += carry
            }
        }
        propagate()
        let negative = digits[last] < 0
        if negative {
            for index in 2...last { digits[index] = -digits[index] }
            propagate()
        }
        var top = last
        while top >= 2, digits[top] == 0 { top -= 1 }
        guard top >= 2 else { return 0 }
        // The three highest digits hold at least 65 significant bits; everything below them is only sticky.
        func word(_ index: Int) -> UInt128 { UInt128(UInt64(bitPattern: digits[index])) }
        let wide = word(top) << 64 | word(top - 1) << 32 | word(top - 2)
        let sticky = top > 4 && digits[2..<(top - 2)].contains { $0 != 0 }
        let magnitude = round(wide, exponent: (top - 2) * 32 + firstExponent, sticky: sticky)
        return negative ? -magnitude : magnitude
    }

    /// The exact sum: sign, first digit's place, digits of its magnitude; equal sums have equal bytes.
    package func encode(into writer: inout ByteWriter) {
        for count in [specials.positive, specials.negative, specials.nan] { writer.append(little: Int64(count)) }
        var copy = self
        copy.spill()
        copy.propagate()
        var isNegative = false
        if copy.low <= copy.high, copy.words[copy.high] < 0 {
            isNegative = true
            for index in copy.low...copy.high { copy.words[index] = -copy.words[index] }
            copy.propagate()
        }
        let used = copy.words.indices.filter { copy.words[$0] != 0 }
        let (first, last) = (used.first ?? 0, used.last ?? -1)
        writer.append(UInt8(isNegative && !used.isEmpty ? 1 : 0))
        writer.append(UInt8(used.isEmpty ? 0 : first))
        writer.append(UInt8(last - first + 1))
        for index in used.isEmpty ? 0..<0 : first..<last + 1 {
            writer.append(little: UInt32(truncatingIfNeeded: copy.words[index]))
        }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        specials.positive = Int(try reader.little(Int64.self))
        specials.negative = Int(try reader.little(Int64.self))
        specials.nan = Int(try reader.little(Int64.self))
        let isNegative = try reader.byte() == 1
        let first = Int(try reader.byte())
        let count = Int(try reader.byte())
        guard first + count <= ExactSum.digits else {
            throw BaseError("bad-sketch", "a sum has digits beyond those of a double", fault: .world)
        }
        guard count > 0 else { return }
        words = Array(repeating: 0, count: ExactSum.digits)
        for index in first..<first + count {
            let digit = Int64(try reader.little(UInt32.self))
            words[index] = isNegative ? -digit : digit
        }
        (low, high) = (first, first + count - 1)
        settle()
    }

    /// Digits back into one whole number, where it holds them: bit 0 of it is bit 998 of the digits.
    private mutating func settle() {
        let shift = 1074 - ExactSum.fixedBits
        let lowest = shift / 32
        guard low >= lowest, high <= lowest + 3, words[lowest] & Int64((1 << (shift % 32)) - 1) == 0 else { return }
        var sum: Int128 = 0
        for index in low...high {
            let up = index * 32 - shift
            sum += up < 0 ? Int128(words[index]) >> Int128(-up) : Int128(words[index]) << Int128(up)
        }
        fixed = sum
        words = []
        (low, high) = (ExactSum.digits, -1)
    }

    /// wide · 2^exponent, rounded once; bits below 2^-1074 do not exist, so subnormals come out exact.
    private static func round(_ wide: UInt128, exponent: Int, sticky: Bool) -> Double {
        let length = 128 - wide.leadingZeroBitCount
        let drop = max(length - 53, -1074 - exponent, 0)
        guard drop > 0 else { return scale(UInt64(wide), exponent) }
        var kept = UInt64(truncatingIfNeeded: wide >> UInt128(drop))
        let rest = wide & ((UInt128(1) << UInt128(drop)) - 1)
        let half = UInt128(1) << UInt128(drop - 1)
        if rest > half || (rest == half && (sticky || kept & 1 == 1)) { kept += 1 }
        return scale(kept, exponent + drop)
    }

    private static func scale(_ mantissa: UInt64, _ exponent: Int) -> Double {
        Double(sign: .plus, exponent: exponent, significand: Double(mantissa))
    }
}
