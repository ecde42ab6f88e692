//! Multixacts: offsets into a list of members, kept in two SLRUs.

use bytes::Bytes;
use ids::{KeyKind, SlruKind};
use pg::datadir::SLRU_SEGMENT_PAGES;
use pg::rmgr::{MultiXactMember, MultiXactRecord};

use super::directory::slru_place;
use super::{Changes, Ingest, Reason, is_ahead};
use crate::value::Value;

const OFFSETS_PER_PAGE: u32 = 8192 / 4;
const MEMBERS_PER_GROUP: u32 = 4;
/// Four bytes of flags, then four transactions.
const GROUP_BYTES: u32 = 20;
const GROUPS_PER_PAGE: u32 = 8192 / GROUP_BYTES;
const MEMBERS_PER_PAGE: u32 = GROUPS_PER_PAGE * MEMBERS_PER_GROUP;

impl Ingest {
    pub(super) fn multixact(
        &mut self,
        record: MultiXactRecord,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        match record {
            // Earlier minor releases write it behind the record that made the page.
            MultiXactRecord::ZeroOffsetsPage(page) if self.made_ahead(page) => {}
            MultiXactRecord::ZeroOffsetsPage(page) => {
                let slru = SlruKind::MultiXactOffsets;
                self.directory.zero_page(slru, page, out);
            }
            MultiXactRecord::ZeroMembersPage(page) => {
                let slru = SlruKind::MultiXactMembers;
                self.directory.zero_page(slru, page, out);
            }
            MultiXactRecord::Create {
                multi,
                offset,
                members,
            } => self.create_multi(multi, offset, &members, out)?,
            MultiXactRecord::Truncate {
                oldest_multi_db,
                end_multi,
                start_member,
                end_member,
                ..
            } => {
                self.checkpoint.oldest_multi = end_multi;
                self.checkpoint.oldest_multi_db = oldest_multi_db;
                self.cut_members(start_member, end_member, out);
                let first = previous_multi(end_multi) / OFFSETS_PER_PAGE;
                let precedes = |page| offsets_page_precedes(page, first);
                let slru = SlruKind::MultiXactOffsets;
                self.directory.cut_slru(slru, precedes, out);
            }
        }
        Ok(())
    }

    /// Whether the last multixact made this page, for where the next one begins.
    fn made_ahead(&self, page: u32) -> bool {
        let next = self.checkpoint.next_multi;
        let is_first = next.is_multiple_of(OFFSETS_PER_PAGE) || next == 1;
        let there = self.directory.has_page(SlruKind::MultiXactOffsets, page);
        is_first && next / OFFSETS_PER_PAGE == page && there
    }

    fn create_multi(
        &mut self,
        multi: u32,
        offset: u32,
        members: &[MultiXactMember],
        out: &mut Changes,
    ) -> Result<(), Reason> {
        // Neither 0 is a valid number: both mean "none".
        let next_multi = multi.wrapping_add(1).max(1);
        let next_offset = offset.wrapping_add(members.len() as u32);
        self.set_offset(multi, offset, out)?;
        // Where this one's members end is where the next one's begin: later minor releases rely
        // on it being there before the next one is made, also at the start of a page.
        let next_page = next_multi / OFFSETS_PER_PAGE;
        let slru = SlruKind::MultiXactOffsets;
        if !self.directory.has_page(slru, next_page) {
            self.directory.zero_page(slru, next_page, out);
        }
        self.set_offset(next_multi, next_offset.max(1), out)?;
        for (index, member) in (0_u32..).zip(members) {
            self.set_member(offset.wrapping_add(index), member, out)?;
            self.saw_xid(member.xid);
        }
        self.advance_multi(next_multi, next_offset);
        Ok(())
    }

    /// Removes the segments from that of `start` up to that of `end`, around the end of numbers.
    fn cut_members(&mut self, start: u32, end: u32, out: &mut Changes) {
        let segment = |member: u32| member / MEMBERS_PER_PAGE / SLRU_SEGMENT_PAGES;
        let (start, end) = (segment(start), segment(end));
        self.directory.drop_slru(
            SlruKind::MultiXactMembers,
            |segment| {
                if start <= end {
                    (start..end).contains(&segment)
                } else {
                    segment >= start || segment < end
                }
            },
            out,
        );
    }

    /// Moves the next multixact and the next member on, never back: a number given out twice
    /// would lock the wrong rows.
    pub(super) fn advance_multi(&mut self, next_multi: u32, next_offset: u32) {
        let checkpoint = &mut self.checkpoint;
        if is_ahead(next_multi, checkpoint.next_multi) {
            checkpoint.next_multi = next_multi;
        }
        if is_ahead(next_offset, checkpoint.next_multi_offset) {
            checkpoint.next_multi_offset = next_offset;
        }
    }

    fn set_offset(&self, multi: u32, offset: u32, out: &mut Changes) -> Result<(), Reason> {
        let at = multi % OFFSETS_PER_PAGE * 4;
        let page = multi / OFFSETS_PER_PAGE;
        self.patch(
            (SlruKind::MultiXactOffsets, page),
            at,
            &offset.to_le_bytes(),
            out,
        )
    }

    fn set_member(
        &self,
        offset: u32,
        member: &MultiXactMember,
        out: &mut Changes,
    ) -> Result<(), Reason> {
        let page = (SlruKind::MultiXactMembers, offset / MEMBERS_PER_PAGE);
        let group = offset / MEMBERS_PER_GROUP % GROUPS_PER_PAGE * GROUP_BYTES;
        let index = offset % MEMBERS_PER_GROUP;
        self.patch(page, group + index, &[member.status as u8], out)?;
        let at = group + 4 + index * 4;
        self.patch(page, at, &member.xid.to_le_bytes(), out)
    }

    fn patch(
        &self,
        (slru, page): (SlruKind, u32),
        at: u32,
        bytes: &[u8],
        out: &mut Changes,
    ) -> Result<(), Reason> {
        if !self.directory.has_page(slru, page) {
            return Err(Reason::NoSlruPage { slru, page });
        }
        let (segment, block) = slru_place(page);
        let patch = Value::Patch {
            offset: at as u16, // within a page
            bytes: Bytes::copy_from_slice(bytes),
        };
        out.put(KeyKind::SlruBlock(slru, segment, block), patch);
        Ok(())
    }
}

/// The multixact before; 0 is none.
const fn previous_multi(multi: u32) -> u32 {
    match multi.wrapping_sub(1) {
        0 => u32::MAX,
        previous => previous,
    }
}

/// Whether all of `page` is older than all of `other`, as multixacts count: modulo 2^32.
const fn offsets_page_precedes(page: u32, other: u32) -> bool {
    let (page, other) = (
        page.wrapping_mul(OFFSETS_PER_PAGE),
        other.wrapping_mul(OFFSETS_PER_PAGE),
    );
    let last = other.wrapping_add(OFFSETS_PER_PAGE - 1);
    is_ahead(other, page) && is_ahead(last, page)
}
