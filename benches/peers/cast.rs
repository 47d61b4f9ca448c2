use std::ops::Range;

/// Who takes part in a work: people, each in one room.
pub struct Cast {
    pub people: Vec<Person>,
    pub rooms: Vec<Room>,
}

pub struct Person {
    pub name: String,
    /// The place in [`Cast::rooms`].
    pub room: usize,
    /// What the server wants to be shown; filled in when a server is prepared for this cast.
    pub credential: String,
}

pub struct Room {
    /// As the server knows it.
    pub name: String,
    /// The places in [`Cast::people`], which are also the clients' numbers.
    pub members: Range<u32>,
}

impl Cast {
    pub fn new(rooms: usize, members: u32) -> Self {
        let mut cast = Self { people: Vec::new(), rooms: Vec::new() };
        for room in 0..rooms {
            let first = cast.people.len() as u32;
            for number in first..first + members {
                cast.people.push(Person { name: format!("bench-{number:05}"), room, credential: String::new() });
            }
            cast.rooms.push(Room { name: format!("room-{room}"), members: first..first + members });
        }
        cast
    }

    pub fn len(&self) -> u32 {
        self.people.len() as u32
    }

    pub fn room_of(&self, client: u32) -> &Room {
        &self.rooms[self.people[client as usize].room]
    }
}
