// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Workload and contribution of nodes, in GAS points
/// @notice Once a day a reporter posts one Merkle root over what every node did on that day, so that a million
/// nodes cost one transaction. A node's points are credited when somebody shows its leaf. Points belong to a
/// UID, the node's Ed25519 public key, and stay there: there is no function that moves them.
/// @dev No proxy, no delegatecall, no ether. What is in which slot is part of the interface, because light
/// clients read it by storage proofs: see chain-lite/docs/contracts.md.
contract Contributions {
    /// @notice What was posted for a day: three slots.
    struct Day {
        /// Merkle root over the day's leaves; zero if nothing stands for the day.
        bytes32 root;
        /// Points of all leaves together. Claims never exceed them, whatever the tree holds.
        uint128 points;
        /// Points that were claimed so far.
        uint128 claimed;
        /// Workload of all leaves together, in bytes.
        uint128 workload;
        /// Unix time in seconds from which the root never changes and claims are taken.
        uint64 finalAt;
        /// How many leaves there are.
        uint32 accounts;
    }

    /// @notice What a UID has accumulated: one slot.
    struct Account {
        /// GAS points.
        uint128 points;
        /// Workload in bytes.
        uint128 workload;
    }

    /// @notice A leaf of a day's tree, with the way to the root.
    struct Claim {
        /// Days since 1970-01-01 UTC.
        uint32 day;
        /// The node's Ed25519 public key.
        bytes32 uid;
        /// Workload of the node on that day, in bytes.
        uint128 workload;
        /// Points of the node for that day.
        uint128 points;
        /// Sibling hashes from the leaf upwards.
        bytes32[] proof;
    }

    /// @notice How long a posted root can be corrected, and claims wait for it.
    uint64 public constant CORRECTION_WINDOW = 24 hours;
    /// @notice Most hashes in a proof: enough for as many leaves as `accounts` can count.
    uint256 public constant PROOF_LEN_MAX = 32;
    /// @notice Most leaves that are claimed in one call.
    uint256 public constant CLAIMS_MAX = 64;
    /// @notice Most points that all nodes together can get for a day.
    uint128 public immutable DAILY_POINTS_MAX;

    /// @notice Who names the reporter, and withdraws roots that are not final.
    address public owner;
    /// @notice Who becomes the owner by accepting.
    address public pendingOwner;
    /// @notice Who posts the roots. Zero: nobody.
    address public reporter;
    /// @notice Who becomes the reporter by accepting.
    address public pendingReporter;
    /// @notice What was posted for a day, by days since 1970-01-01 UTC.
    mapping(uint32 day => Day) public dayOf;
    /// @notice What a UID has accumulated.
    mapping(bytes32 uid => Account) public accountOf;
    /// @notice Which days a UID has claimed: bit `day % 256` of word `day / 256`.
    mapping(bytes32 uid => mapping(uint32 word => uint256)) public claimedDays;

    event OwnerProposed(address indexed current, address indexed proposed);
    event OwnerChanged(address indexed previous, address indexed current);
    event ReporterProposed(address indexed current, address indexed proposed);
    event ReporterChanged(address indexed previous, address indexed current);
    /// @notice A root was posted. It can change until `finalAt`.
    event DayPosted(
        uint32 indexed day, bytes32 root, uint128 points, uint128 workload, uint32 accounts, uint64 finalAt
    );
    /// @notice A root was replaced before it was final; a `DayPosted` follows with what holds now.
    event DayCorrected(uint32 indexed day, bytes32 previousRoot);
    /// @notice A root was taken back before it was final; the reporter may post another.
    event DayWithdrawn(uint32 indexed day, bytes32 previousRoot);
    /// @notice A leaf was credited. `balance` is what the UID has now, in points.
    event Claimed(uint32 indexed day, bytes32 indexed uid, uint128 workload, uint128 points, uint128 balance);

    error NotOwner(address caller);
    error NotPendingOwner(address caller);
    error NotReporter(address caller);
    error NotPendingReporter(address caller);
    error ZeroAddress();
    error ZeroRoot();
    error NoAccounts();
    error DayNotOver(uint32 day, uint256 endsAt);
    error DayAlreadyPosted(uint32 day);
    error DayNotPosted(uint32 day);
    error DayFinal(uint32 day, uint64 finalAt);
    error DayNotFinal(uint32 day, uint64 finalAt);
    error DailyPointsExceeded(uint128 points, uint128 max);
    error ClaimCount(uint256 count, uint256 max);
    error ProofTooLong(uint256 length, uint256 max);
    error WrongProof(uint32 day, bytes32 uid);
    error AlreadyClaimed(uint32 day, bytes32 uid);
    error DayExhausted(uint32 day, uint128 points, uint128 left);

    modifier onlyOwner() {
        require(msg.sender == owner, NotOwner(msg.sender));
        _;
    }

    modifier onlyReporter() {
        require(msg.sender == reporter, NotReporter(msg.sender));
        _;
    }

    /// @param owner_ names reporters and withdraws roots; not zero.
    /// @param reporter_ posts the roots; zero if one is proposed later.
    /// @param dailyPointsMax most points for all nodes together and a day.
    constructor(address owner_, address reporter_, uint128 dailyPointsMax) {
        require(owner_ != address(0), ZeroAddress());
        owner = owner_;
        reporter = reporter_;
        DAILY_POINTS_MAX = dailyPointsMax;
        emit OwnerChanged(address(0), owner_);
        emit ReporterChanged(address(0), reporter_);
    }

    // ---- a day's root -----------------------------------------------------------------------------------

    /// @notice Posts a day's root. The day must be over; days may be left out and posted later.
    /// @param day days since 1970-01-01 UTC.
    /// @param root of the tree over (day, uid, workload, points), as OpenZeppelin's standard tree makes it.
    /// @param points of all leaves together.
    /// @param workload of all leaves together, in bytes.
    /// @param accounts how many leaves there are.
    function postDay(uint32 day, bytes32 root, uint128 points, uint128 workload, uint32 accounts)
        external
        onlyReporter
    {
        uint256 endsAt = (uint256(day) + 1) * 1 days;
        require(block.timestamp >= endsAt, DayNotOver(day, endsAt));
        require(dayOf[day].root == 0, DayAlreadyPosted(day));
        _post(day, root, points, workload, accounts);
    }

    /// @notice Replaces a root that is not final. The window begins again, so that there is as much time to
    /// look at the new root as there was for the old one.
    function correctDay(uint32 day, bytes32 root, uint128 points, uint128 workload, uint32 accounts)
        external
        onlyReporter
    {
        emit DayCorrected(day, _openRoot(day));
        _post(day, root, points, workload, accounts);
    }

    /// @notice Takes back a root that is not final: what the owner does about a reporter that lies.
    function withdrawDay(uint32 day) external onlyOwner {
        emit DayWithdrawn(day, _openRoot(day));
        delete dayOf[day];
    }

    // ---- claims -----------------------------------------------------------------------------------------

    /// @notice Credits a leaf to its UID. Anybody may call it, for any node: the points go nowhere else.
    function claim(Claim calldata leaf) external {
        _claim(leaf);
    }

    /// @notice Credits several leaves, of one node or many. One that cannot be credited fails them all.
    function claimMany(Claim[] calldata leaves) external {
        require(leaves.length != 0 && leaves.length <= CLAIMS_MAX, ClaimCount(leaves.length, CLAIMS_MAX));
        for (uint256 i = 0; i < leaves.length; ++i) {
            _claim(leaves[i]);
        }
    }

    /// @notice Whether a UID has claimed a day.
    function isClaimed(bytes32 uid, uint32 day) external view returns (bool) {
        return claimedDays[uid][day >> 8] & (1 << (day & 255)) != 0;
    }

    /// @notice Points of a UID.
    function balanceOf(bytes32 uid) external view returns (uint128) {
        return accountOf[uid].points;
    }

    /// @notice The hash of a leaf. It is hashed twice, so that no inner node can pass for one.
    function leafHash(uint32 day, bytes32 uid, uint128 workload, uint128 points) public pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(day, uid, workload, points))));
    }

    // ---- roles ------------------------------------------------------------------------------------------

    /// @notice Proposes another owner, who must accept. Zero takes a proposal back.
    function proposeOwner(address proposed) external onlyOwner {
        pendingOwner = proposed;
        emit OwnerProposed(owner, proposed);
    }

    /// @notice Makes the proposed owner the owner.
    function acceptOwner() external {
        require(msg.sender == pendingOwner, NotPendingOwner(msg.sender));
        emit OwnerChanged(owner, msg.sender);
        owner = msg.sender;
        pendingOwner = address(0);
    }

    /// @notice Proposes another reporter, who must accept; until then the present one posts. Zero takes a
    /// proposal back.
    function proposeReporter(address proposed) external onlyOwner {
        pendingReporter = proposed;
        emit ReporterProposed(reporter, proposed);
    }

    /// @notice Makes the proposed reporter the reporter.
    function acceptReporter() external {
        require(msg.sender == pendingReporter, NotPendingReporter(msg.sender));
        emit ReporterChanged(reporter, msg.sender);
        reporter = msg.sender;
        pendingReporter = address(0);
    }

    /// @notice Takes the reporter's right to post at once, without another in its place.
    function removeReporter() external onlyOwner {
        emit ReporterChanged(reporter, address(0));
        reporter = address(0);
    }

    // ---- inside -----------------------------------------------------------------------------------------

    /// @dev The root of a day that is posted and not final.
    function _openRoot(uint32 day) private view returns (bytes32 root) {
        Day storage posted = dayOf[day];
        root = posted.root;
        require(root != 0, DayNotPosted(day));
        require(block.timestamp < posted.finalAt, DayFinal(day, posted.finalAt));
    }

    function _post(uint32 day, bytes32 root, uint128 points, uint128 workload, uint32 accounts) private {
        require(root != 0, ZeroRoot());
        require(accounts != 0, NoAccounts());
        require(points <= DAILY_POINTS_MAX, DailyPointsExceeded(points, DAILY_POINTS_MAX));
        uint64 finalAt = uint64(block.timestamp) + CORRECTION_WINDOW;
        dayOf[day] = Day({
            root: root, points: points, claimed: 0, workload: workload, finalAt: finalAt, accounts: accounts
        });
        emit DayPosted(day, root, points, workload, accounts, finalAt);
    }

    function _claim(Claim calldata leaf) private {
        Day storage posted = dayOf[leaf.day];
        bytes32 root = posted.root;
        require(root != 0, DayNotPosted(leaf.day));
        require(block.timestamp >= posted.finalAt, DayNotFinal(leaf.day, posted.finalAt));

        uint256 claimed = claimedDays[leaf.uid][leaf.day >> 8];
        uint256 bit = 1 << (leaf.day & 255);
        require(claimed & bit == 0, AlreadyClaimed(leaf.day, leaf.uid));
        bytes32 hash = leafHash(leaf.day, leaf.uid, leaf.workload, leaf.points);
        require(_climb(hash, leaf.proof) == root, WrongProof(leaf.day, leaf.uid));
        uint128 left = posted.points - posted.claimed;
        require(leaf.points <= left, DayExhausted(leaf.day, leaf.points, left));

        claimedDays[leaf.uid][leaf.day >> 8] = claimed | bit;
        posted.claimed += leaf.points;
        Account storage account = accountOf[leaf.uid];
        uint128 balance = account.points + leaf.points;
        account.points = balance;
        account.workload += leaf.workload;
        emit Claimed(leaf.day, leaf.uid, leaf.workload, leaf.points, balance);
    }

    /// @dev The root that a leaf and its siblings lead to; two hashes are hashed the smaller one first.
    function _climb(bytes32 hash, bytes32[] calldata proof) private pure returns (bytes32) {
        require(proof.length <= PROOF_LEN_MAX, ProofTooLong(proof.length, PROOF_LEN_MAX));
        for (uint256 i = 0; i < proof.length; ++i) {
            bytes32 sibling = proof[i];
            hash = hash < sibling ? _pair(hash, sibling) : _pair(sibling, hash);
        }
        return hash;
    }

    /// @dev keccak256(left, right) in scratch space.
    function _pair(bytes32 left, bytes32 right) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore(0x00, left)
            mstore(0x20, right)
            hash := keccak256(0x00, 0x40)
        }
    }
}
