/** The few icons of this page, drawn as strokes; a package of thousands would be larger than the page. */
import SvgIcon, { type SvgIconProps } from "@mui/material/SvgIcon";

function stroked(path: string) {
  return function Icon(props: SvgIconProps) {
    return (
      <SvgIcon viewBox="0 0 24 24" {...props}>
        <path d={path} fill="none" stroke="currentColor" strokeWidth="1.8" strokeLinecap="round" strokeLinejoin="round" />
      </SvgIcon>
    );
  };
}

export const BackIcon = stroked("M15 5l-7 7 7 7");
export const DownIcon = stroked("M12 5v14M6 13l6 6 6-6");
export const SendIcon = stroked("M4 12l16-8-6 16-3-7-7-1zM11 13l4-4");
export const PlusIcon = stroked("M12 5v14M5 12h14");
export const LogOutIcon = stroked("M14 4H6v16h8M10 12h11M17 8l4 4-4 4");
export const ClockIcon = stroked("M12 7v5l3 2M12 3a9 9 0 1 1 0 18a9 9 0 1 1 0-18");
export const CheckIcon = stroked("M5 13l4 4 10-11");
export const AlertIcon = stroked("M12 8v5M12 16.5v.2M12 3a9 9 0 1 1 0 18a9 9 0 1 1 0-18");
export const HashIcon = stroked("M9 4L7 20M17 4l-2 16M4.5 9h16M3.5 15h16");
export const EyeIcon = stroked("M2.5 12C5 7.5 8.3 5.5 12 5.5s7 2 9.5 6.5c-2.5 4.5-5.8 6.5-9.5 6.5S5 16.5 2.5 12zM12 9.2a2.8 2.8 0 1 1 0 5.6a2.8 2.8 0 1 1 0-5.6");
