/// A text as a key that is the same only when its bytes are: Swift's own texts are equal when they look the same (an accent
/// in one code point or in two), which the log, the state stores and other languages tell apart.
package struct ExactText: Hashable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }

    package static func == (left: ExactText, right: ExactText) -> Bool {
        let (first, second) = (left.text.utf8, right.text.utf8)
        guard first.count == second.count else { return false }
        let isSame = first.withContiguousStorageIfAvailable { first in
            second.withContiguousStorageIfAvailable { second in
                for index in 0..<first.count where first[index] != second[index] { return false }
                return true
            }
        }
        return (isSame ?? nil) ?? first.elementsEqual(second)
    }

    package func hash(into hasher: inout Hasher) {
        let isHashed: Void? = text.utf8.withContiguousStorageIfAvailable {
            hasher.combine(bytes: UnsafeRawBufferPointer($0))
        }
        if isHashed == nil { for byte in text.utf8 { hasher.combine(byte) } }
    }
}
