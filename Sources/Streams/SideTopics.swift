/// Where a topology puts what is no result: a late event, one that it could not fold, the digests of its state. Each is
/// written by one topology alone, so that its events have places that are known before the log has them.
package struct SideTopics: Sendable, Equatable {
    package let late: String
    package let unfolded: String
    package let digests: String

    /// Those of the workspace's own topology.
    package static let platform = SideTopics(
        late: "headrace.late", unfolded: "headrace.unfolded", digests: "headrace.digests")

    private init(late: String, unfolded: String, digests: String) {
        self.late = late
        self.unfolded = unfolded
        self.digests = digests
    }

    /// Those of a topology of typed streams.
    package init(of topology: String) {
        self.init(late: topology + ".late", unfolded: topology + ".unfolded", digests: topology + ".digests")
    }

    package var all: [String] { [late, unfolded, digests] }
}
